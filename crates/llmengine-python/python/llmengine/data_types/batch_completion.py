"""Many completions at once, made when there is time."""

from enum import Enum
from typing import Dict, List, Optional, Union

from .._record import Record, field
from .chat_completion import ChatCompletionV2Request, ChatCompletionV2Response
from .completion import CompletionOutput, CompletionV2Request, CompletionV2Response
from .core import CpuSpecificationType, GpuType, StorageSpecificationType
from .vllm import VLLMModelConfig

CompletionV1Output = CompletionOutput
_DAY = 24 * 3600


class ToolConfig(Record):
    """A tool that the model may use."""

    name: str
    max_iterations: Optional[int] = 10
    execution_timeout_seconds: Optional[int] = 60
    should_retry_on_error: Optional[bool] = True


class BatchCompletionsModelConfig(VLLMModelConfig):
    """The model, and how it is loaded."""

    model: str
    checkpoint_path: Optional[str] = None
    num_shards: Optional[int] = field(1, ge=1)
    max_context_length: Optional[int] = field(None, ge=1)
    seed: Optional[int] = None
    response_role: Optional[str] = None


class BatchCompletionsRequestBase(Record):
    """What both versions of the API ask for."""

    input_data_path: Optional[str] = None
    output_data_path: str
    labels: Dict[str, str] = field(default_factory=dict)
    data_parallelism: Optional[int] = field(1, ge=1, le=64)
    max_runtime_sec: Optional[int] = field(_DAY, ge=1, le=2 * _DAY)
    priority: Optional[str] = None
    tool_config: Optional[ToolConfig] = None
    cpus: Optional[CpuSpecificationType] = None
    gpus: Optional[int] = None
    memory: Optional[StorageSpecificationType] = None
    gpu_type: Optional[GpuType] = None
    storage: Optional[StorageSpecificationType] = None
    nodes_per_worker: Optional[int] = None


class CreateBatchCompletionsV1ModelConfig(BatchCompletionsModelConfig):
    """The model, and how it is loaded."""

    labels: Dict[str, str] = field(default_factory=dict)


class CreateBatchCompletionsV1RequestContent(Record):
    """The prompts, and how they are completed."""

    prompts: List[str]
    max_new_tokens: int
    temperature: float = field(ge=0, le=1)
    stop_sequences: Optional[List[str]] = None
    return_token_log_probs: Optional[bool] = False
    presence_penalty: Optional[float] = field(None, ge=0, le=2)
    frequency_penalty: Optional[float] = field(None, ge=0, le=2)
    top_k: Optional[int] = field(None, ge=-1)
    top_p: Optional[float] = field(None, gt=0, le=1)
    skip_special_tokens: Optional[bool] = True


class CreateBatchCompletionsV1Request(BatchCompletionsRequestBase):
    """Asks for a batch, in version 1 of the API."""

    content: Optional[CreateBatchCompletionsV1RequestContent] = None
    model_config: CreateBatchCompletionsV1ModelConfig


class CreateBatchCompletionsV1Response(Record):
    """The batch is accepted."""

    job_id: str


class FilteredCompletionV2Request(CompletionV2Request):
    """A completion in a batch, whose model is the batch's."""

    model: Optional[str] = None  # type: ignore[assignment]
    stream: Optional[bool] = False


class FilteredChatCompletionV2Request(ChatCompletionV2Request):
    """A chat in a batch, whose model is the batch's."""

    model: Optional[str] = None  # type: ignore[assignment]
    stream: Optional[bool] = False


CompletionRequest = Union[FilteredCompletionV2Request, FilteredChatCompletionV2Request]
CompletionResponse = Union[CompletionV2Response, ChatCompletionV2Response]
CreateBatchCompletionsV2RequestContent = Union[
    List[FilteredCompletionV2Request], List[FilteredChatCompletionV2Request]
]
CreateBatchCompletionsV2ModelConfig = BatchCompletionsModelConfig
BatchCompletionContent = Union[CreateBatchCompletionsV1RequestContent, CreateBatchCompletionsV2RequestContent]


class CreateBatchCompletionsV2Request(BatchCompletionsRequestBase):
    """Asks for a batch, in version 2 of the API."""

    content: Optional[BatchCompletionContent] = None
    model_config: BatchCompletionsModelConfig


class BatchCompletionsJobStatus(str, Enum):
    """How far a batch is."""

    Queued = "queued"
    Running = "running"
    Completed = "completed"
    Failed = "failed"
    Cancelled = "cancelled"
    Unknown = "unknown"


class BatchCompletionsJob(Record):
    """A batch."""

    job_id: str
    input_data_path: Optional[str] = None
    output_data_path: str
    model_config: BatchCompletionsModelConfig
    priority: Optional[str] = None
    status: BatchCompletionsJobStatus
    created_at: str
    expires_at: str
    completed_at: Optional[str] = None
    metadata: Optional[Dict[str, str]] = None


CreateBatchCompletionsV2Response = BatchCompletionsJob


class UpdateBatchCompletionsV2Request(Record):
    """Asks for another priority."""

    job_id: str
    priority: Optional[str] = None


class UpdateBatchCompletionsV2Response(BatchCompletionsJob):
    """The batch, and whether it was changed."""

    success: bool


class CancelBatchCompletionsV2Request(Record):
    """Asks for the end of a batch."""

    job_id: str


class CancelBatchCompletionsV2Response(Record):
    """Whether the batch was ended."""

    success: bool


class ListBatchCompletionV2Response(Record):
    """Batches."""

    jobs: List[BatchCompletionsJob]


class GetBatchCompletionV2Response(Record):
    """A batch."""

    job: BatchCompletionsJob
