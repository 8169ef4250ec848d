"""Settings of vLLM that are passed on."""

from typing import Any, Dict, List, Optional

from .._record import Record, field


class VLLMModelConfig(Record):
    """How vLLM loads a model."""

    max_model_len: Optional[int] = None
    max_num_seqs: Optional[int] = None
    enforce_eager: Optional[bool] = None
    trust_remote_code: Optional[bool] = False
    pipeline_parallel_size: Optional[int] = None
    tensor_parallel_size: Optional[int] = None
    quantization: Optional[str] = None
    disable_log_requests: Optional[bool] = None
    chat_template: Optional[str] = None
    tool_call_parser: Optional[str] = None
    enable_auto_tool_choice: Optional[bool] = None
    load_format: Optional[str] = None
    config_format: Optional[str] = None
    tokenizer_mode: Optional[str] = None
    limit_mm_per_prompt: Optional[str] = None
    max_num_batched_tokens: Optional[int] = None
    tokenizer: Optional[str] = None
    dtype: Optional[str] = None
    seed: Optional[int] = None
    revision: Optional[str] = None
    code_revision: Optional[str] = None
    rope_scaling: Optional[Dict[str, Any]] = None
    tokenizer_revision: Optional[str] = None
    quantization_param_path: Optional[str] = None
    max_seq_len_to_capture: Optional[int] = None
    disable_sliding_window: Optional[bool] = None
    skip_tokenizer_init: Optional[bool] = None
    served_model_name: Optional[str] = None
    override_neuron_config: Optional[Dict[str, Any]] = None
    mm_processor_kwargs: Optional[Dict[str, Any]] = None
    block_size: Optional[int] = None
    gpu_memory_utilization: Optional[float] = None
    swap_space: Optional[float] = None
    cache_dtype: Optional[str] = None
    num_gpu_blocks_override: Optional[int] = None
    enable_prefix_caching: Optional[bool] = None


class VLLMEngineAdditionalArgs(Record):
    """How vLLM uses its machine."""

    max_gpu_memory_utilization: Optional[float] = None
    attention_backend: Optional[str] = None


class VLLMEndpointAdditionalArgs(VLLMModelConfig, VLLMEngineAdditionalArgs):
    """Both."""


class VLLMSamplingParams(Record):
    """How vLLM chooses tokens, beyond what OpenAI's dialect can say."""

    best_of: Optional[int] = None
    top_k: Optional[int] = field(None, ge=-1)
    min_p: Optional[float] = None
    use_beam_search: Optional[bool] = None
    length_penalty: Optional[float] = None
    repetition_penalty: Optional[float] = None
    early_stopping: Optional[bool] = None
    stop_token_ids: Optional[List[int]] = field(default_factory=list)
    include_stop_str_in_output: Optional[bool] = None
    ignore_eos: Optional[bool] = None
    min_tokens: Optional[int] = None
    skip_special_tokens: Optional[bool] = True
    spaces_between_special_tokens: Optional[bool] = True


class VLLMChatCompletionAdditionalParams(VLLMSamplingParams):
    """The same for chats."""

    echo: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    documents: Optional[List[Dict[str, str]]] = None
    chat_template: Optional[str] = None
    chat_template_kwargs: Optional[Dict[str, Any]] = None
    guided_json: Optional[Dict[str, Any]] = None
    guided_regex: Optional[str] = None
    guided_choice: Optional[List[str]] = None
    guided_grammar: Optional[str] = None
    guided_decoding_backend: Optional[str] = None
    guided_whitespace_pattern: Optional[str] = None
    priority: int = 0


class VLLMCompletionAdditionalParams(VLLMSamplingParams):
    """The same for completions."""

    add_special_tokens: Optional[bool] = None
    response_format: Optional[Dict[str, Any]] = None
    guided_json: Optional[Dict[str, Any]] = None
    guided_regex: Optional[str] = None
    guided_choice: Optional[List[str]] = None
    guided_grammar: Optional[str] = None
    guided_decoding_backend: Optional[str] = None
    guided_whitespace_pattern: Optional[str] = None
