"""Completions."""

from typing import Any, Dict, List, Literal, Optional, Union, cast, overload
from urllib.parse import quote

from ._calls import AsyncStream, Stream, aopen, asend
from ._calls import read as _read
from .api_engine import APIEngine, _call, _json
from .data_types import (
    BatchCompletionContent,
    CompletionStreamResponse,
    CompletionStreamV1Request,
    CompletionSyncResponse,
    CompletionSyncV1Request,
    CpuSpecificationType,
    CreateBatchCompletionsModelConfig,
    CreateBatchCompletionsV1Request,
    CreateBatchCompletionsV1RequestContent,
    CreateBatchCompletionsV1Response,
    CreateBatchCompletionsV2Request,
    CreateBatchCompletionsV2Response,
    GpuType,
    StorageSpecificationType,
    ToolConfig,
)

COMPLETION_TIMEOUT = 300
HTTP_TIMEOUT = 60


class Completion(APIEngine):
    """Text that comes after a prompt.

    >>> import llmengine
    >>> response = llmengine.Completion.create(
    ...     model="llama-7b", prompt="Why is the sky blue?", max_new_tokens=100, temperature=0.2
    ... )  # doctest: +SKIP
    """

    @classmethod
    @overload
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        stop_sequences: Optional[List[str]] = ...,
        return_token_log_probs: Optional[bool] = ...,
        presence_penalty: Optional[float] = ...,
        frequency_penalty: Optional[float] = ...,
        top_k: Optional[int] = ...,
        top_p: Optional[float] = ...,
        include_stop_str_in_output: Optional[bool] = ...,
        guided_json: Optional[Dict[str, Any]] = ...,
        guided_regex: Optional[str] = ...,
        guided_choice: Optional[List[str]] = ...,
        guided_grammar: Optional[str] = ...,
        timeout: Optional[float] = ...,
        stream: Literal[False] = ...,
        request_headers: Optional[Dict[str, str]] = ...,
        max_retries: Optional[int] = ...,
        **kwargs: Any,
    ) -> CompletionSyncResponse: ...

    @classmethod
    @overload
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        stop_sequences: Optional[List[str]] = ...,
        return_token_log_probs: Optional[bool] = ...,
        presence_penalty: Optional[float] = ...,
        frequency_penalty: Optional[float] = ...,
        top_k: Optional[int] = ...,
        top_p: Optional[float] = ...,
        include_stop_str_in_output: Optional[bool] = ...,
        guided_json: Optional[Dict[str, Any]] = ...,
        guided_regex: Optional[str] = ...,
        guided_choice: Optional[List[str]] = ...,
        guided_grammar: Optional[str] = ...,
        timeout: Optional[float] = ...,
        *,
        stream: Literal[True],
        request_headers: Optional[Dict[str, str]] = ...,
        max_retries: Optional[int] = ...,
        **kwargs: Any,
    ) -> AsyncStream[CompletionStreamResponse]: ...

    @classmethod
    @overload
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        stop_sequences: Optional[List[str]] = ...,
        return_token_log_probs: Optional[bool] = ...,
        presence_penalty: Optional[float] = ...,
        frequency_penalty: Optional[float] = ...,
        top_k: Optional[int] = ...,
        top_p: Optional[float] = ...,
        include_stop_str_in_output: Optional[bool] = ...,
        guided_json: Optional[Dict[str, Any]] = ...,
        guided_regex: Optional[str] = ...,
        guided_choice: Optional[List[str]] = ...,
        guided_grammar: Optional[str] = ...,
        timeout: Optional[float] = ...,
        *,
        stream: bool,
        request_headers: Optional[Dict[str, str]] = ...,
        max_retries: Optional[int] = ...,
        **kwargs: Any,
    ) -> Union[CompletionSyncResponse, AsyncStream[CompletionStreamResponse]]: ...

    @classmethod
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        stop_sequences: Optional[List[str]] = None,
        return_token_log_probs: Optional[bool] = False,
        presence_penalty: Optional[float] = None,
        frequency_penalty: Optional[float] = None,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
        include_stop_str_in_output: Optional[bool] = None,
        guided_json: Optional[Dict[str, Any]] = None,
        guided_regex: Optional[str] = None,
        guided_choice: Optional[List[str]] = None,
        guided_grammar: Optional[str] = None,
        timeout: Optional[float] = None,
        stream: bool = False,
        request_headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
        **kwargs: Any,
    ) -> Union[CompletionSyncResponse, AsyncStream[CompletionStreamResponse]]:
        """As `create`, for an event loop. With `stream=True` what is awaited is iterated over with `async for`.

        A task that is cancelled, and a stream that is closed early, gives up its call at the server too.
        """
        settings = {name: value for name, value in locals().items() if name in _SETTINGS}
        call = _completion(model, {**settings, **kwargs}, stream, timeout, request_headers, max_retries)
        if stream:
            return AsyncStream(await aopen(call), CompletionStreamResponse.parse_obj)
        return CompletionSyncResponse.parse_obj(await asend(call))

    @classmethod
    @overload
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        stop_sequences: Optional[List[str]] = ...,
        return_token_log_probs: Optional[bool] = ...,
        presence_penalty: Optional[float] = ...,
        frequency_penalty: Optional[float] = ...,
        top_k: Optional[int] = ...,
        top_p: Optional[float] = ...,
        include_stop_str_in_output: Optional[bool] = ...,
        guided_json: Optional[Dict[str, Any]] = ...,
        guided_regex: Optional[str] = ...,
        guided_choice: Optional[List[str]] = ...,
        guided_grammar: Optional[str] = ...,
        timeout: Optional[float] = ...,
        stream: Literal[False] = ...,
        request_headers: Optional[Dict[str, str]] = ...,
        max_retries: Optional[int] = ...,
        **kwargs: Any,
    ) -> CompletionSyncResponse: ...

    @classmethod
    @overload
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        stop_sequences: Optional[List[str]] = ...,
        return_token_log_probs: Optional[bool] = ...,
        presence_penalty: Optional[float] = ...,
        frequency_penalty: Optional[float] = ...,
        top_k: Optional[int] = ...,
        top_p: Optional[float] = ...,
        include_stop_str_in_output: Optional[bool] = ...,
        guided_json: Optional[Dict[str, Any]] = ...,
        guided_regex: Optional[str] = ...,
        guided_choice: Optional[List[str]] = ...,
        guided_grammar: Optional[str] = ...,
        timeout: Optional[float] = ...,
        *,
        stream: Literal[True],
        request_headers: Optional[Dict[str, str]] = ...,
        max_retries: Optional[int] = ...,
        **kwargs: Any,
    ) -> Stream[CompletionStreamResponse]: ...

    @classmethod
    @overload
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        stop_sequences: Optional[List[str]] = ...,
        return_token_log_probs: Optional[bool] = ...,
        presence_penalty: Optional[float] = ...,
        frequency_penalty: Optional[float] = ...,
        top_k: Optional[int] = ...,
        top_p: Optional[float] = ...,
        include_stop_str_in_output: Optional[bool] = ...,
        guided_json: Optional[Dict[str, Any]] = ...,
        guided_regex: Optional[str] = ...,
        guided_choice: Optional[List[str]] = ...,
        guided_grammar: Optional[str] = ...,
        timeout: Optional[float] = ...,
        *,
        stream: bool,
        request_headers: Optional[Dict[str, str]] = ...,
        max_retries: Optional[int] = ...,
        **kwargs: Any,
    ) -> Union[CompletionSyncResponse, Stream[CompletionStreamResponse]]: ...

    @classmethod
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        stop_sequences: Optional[List[str]] = None,
        return_token_log_probs: Optional[bool] = False,
        presence_penalty: Optional[float] = None,
        frequency_penalty: Optional[float] = None,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
        include_stop_str_in_output: Optional[bool] = None,
        guided_json: Optional[Dict[str, Any]] = None,
        guided_regex: Optional[str] = None,
        guided_choice: Optional[List[str]] = None,
        guided_grammar: Optional[str] = None,
        timeout: Optional[float] = None,
        stream: bool = False,
        request_headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
        **kwargs: Any,
    ) -> Union[CompletionSyncResponse, Stream[CompletionStreamResponse]]:
        """Completes a prompt.

        Args:
            model: Whose completion it is; `Model.list()` says which there are.
            prompt: What to complete.
            max_new_tokens: The most tokens to generate, at least 1.
            temperature: 0 for always the likeliest, up to 1.
            stop_sequences: Texts at which to stop.
            return_token_log_probs: Whether to return each token and how likely it was.
            presence_penalty: How much what has been said is avoided, 0 to 2.
            frequency_penalty: The same, by how often it has been said.
            top_k: Choose among so many tokens; -1 for all.
            top_p: Choose among the likeliest tokens that make up this share.
            include_stop_str_in_output: Whether the text ends with what it stopped at.
            guided_json: A JSON schema that the text follows. Of the four guides there can be one.
            guided_regex: A regular expression that it matches.
            guided_choice: Texts of which it is one.
            guided_grammar: A grammar that it follows.
            timeout: Seconds for the call in all, waits and attempts together; `llmengine.defaults.timeout` by default.
            stream: Whether to iterate over pieces of the text as they come. It is tried again until the first one is there.
            request_headers: Headers to send besides.
            max_retries: Attempts after the first one; `llmengine.defaults.max_retries` by default.

        Raises:
            llmengine.errors.LLMEngineError: One of its kinds, when there is no answer: `attempts` says what was tried.
        """
        settings = {name: value for name, value in locals().items() if name in _SETTINGS}
        call = _completion(model, {**settings, **kwargs}, stream, timeout, request_headers, max_retries)
        if stream:
            return Stream(call.open(), CompletionStreamResponse.parse_obj)
        return CompletionSyncResponse.parse_obj(_read(call.send().body))

    @classmethod
    def batch_create(
        cls,
        output_data_path: str,
        model_config: CreateBatchCompletionsModelConfig,
        content: Optional[BatchCompletionContent] = None,
        input_data_path: Optional[str] = None,
        data_parallelism: int = 1,
        max_runtime_sec: int = 24 * 3600,
        labels: Optional[Dict[str, str]] = None,
        priority: Optional[str] = None,
        use_v2: bool = False,
        tool_config: Optional[ToolConfig] = None,
        cpus: Optional[CpuSpecificationType] = None,
        gpus: Optional[int] = None,
        memory: Optional[StorageSpecificationType] = None,
        gpu_type: Optional[GpuType] = None,
        storage: Optional[StorageSpecificationType] = None,
        request_headers: Optional[Dict[str, str]] = None,
        **kwargs: Any,
    ) -> Union[CreateBatchCompletionsV1Response, CreateBatchCompletionsV2Response]:
        """Has many prompts completed when there is time.

        Args:
            output_data_path: Where the completions go.
            model_config: The model, and how it is loaded.
            content: The prompts; this, or where they are.
            input_data_path: Where the prompts are.
            data_parallelism: How many jobs share the work, 1 to 64.
            max_runtime_sec: How long it may take.
            labels: Names for it.
            priority: How soon it is done.
            use_v2: Whether by version 2 of the API.
            tool_config: A tool that the model may use.
            cpus: What each worker has; as the following.
            gpus: GPUs.
            memory: Memory.
            gpu_type: The kind of GPU.
            storage: Storage.
            request_headers: Headers to send besides.
        """
        if use_v2:
            request = CreateBatchCompletionsV2Request(
                model_config=model_config,
                content=content,
                input_data_path=input_data_path,
                output_data_path=output_data_path,
                data_parallelism=data_parallelism,
                labels=labels or model_config.labels,
                max_runtime_sec=max_runtime_sec,
                tool_config=tool_config,
                priority=priority,
                cpus=cpus,
                gpus=gpus,
                memory=memory,
                gpu_type=gpu_type,
                storage=storage,
                **kwargs,
            )
            response = cls.post_sync("v2/batch-completions", _posted(request), headers=request_headers)
            return CreateBatchCompletionsV2Response.parse_obj(response)
        if input_data_path is None and not isinstance(content, CreateBatchCompletionsV1RequestContent):
            raise ValueError(
                "Either input_data_path or content must be provided; content is a CreateBatchCompletionsV1RequestContent."
            )
        request_v1 = CreateBatchCompletionsV1Request(
            model_config=model_config,
            content=cast(Optional[CreateBatchCompletionsV1RequestContent], content),
            input_data_path=input_data_path,
            output_data_path=output_data_path,
            data_parallelism=data_parallelism,
            max_runtime_sec=max_runtime_sec,
            tool_config=tool_config,
        )
        response = cls.post_sync("v1/llm/batch-completions", _posted(request_v1), headers=request_headers)
        return CreateBatchCompletionsV1Response.parse_obj(response)

    @classmethod
    def get_batch_completion(
        cls, job_id: str, request_headers: Optional[Dict[str, str]] = None
    ) -> Dict[str, Any]:
        """How far a batch is."""
        response: Dict[str, Any] = cls._get(f"v2/batch-completions/{job_id}", headers=request_headers)
        return response

    @classmethod
    def cancel_batch_completion(
        cls, job_id: str, request_headers: Optional[Dict[str, str]] = None
    ) -> Dict[str, Any]:
        """Ends a batch."""
        path = f"v2/batch-completions/{job_id}/actions/cancel"
        response: Dict[str, Any] = cls.post_sync(path, {}, headers=request_headers)
        return response


# Parameters of `create` that are sent.
_SETTINGS = frozenset(CompletionSyncV1Request._specs())


def _completion(
    model: str,
    settings: Dict[str, Any],
    stream: bool,
    timeout: Optional[float],
    headers: Optional[Dict[str, str]],
    max_retries: Optional[int],
) -> Any:
    kind = CompletionStreamV1Request if stream else CompletionSyncV1Request
    way = "stream" if stream else "sync"
    path = f"v1/llm/completions-{way}?model_endpoint_name={quote(model, safe='')}"
    return _call("POST", path, _json(kind(**settings).dict()), timeout, headers, max_retries)


def _posted(request: Any) -> Dict[str, Any]:
    # As JSON says it: enumerations and dates too.
    posted: Dict[str, Any] = _read(request.json().encode())
    return posted
