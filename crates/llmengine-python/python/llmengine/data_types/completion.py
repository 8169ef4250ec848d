"""Completions."""

from typing import Any, Dict, List, Optional, Union

from .._record import Record, field
from .core import StreamError
from .openai import CreateCompletionRequest, CreateCompletionResponse
from .vllm import VLLMCompletionAdditionalParams


class CompletionSyncV1Request(Record):
    """Asks for a whole completion."""

    prompt: str
    max_new_tokens: int
    temperature: float = field(ge=0, le=1)
    stop_sequences: Optional[List[str]] = None
    return_token_log_probs: Optional[bool] = False
    presence_penalty: Optional[float] = field(None, ge=0, le=2)
    frequency_penalty: Optional[float] = field(None, ge=0, le=2)
    top_k: Optional[int] = field(None, ge=-1)
    top_p: Optional[float] = field(None, gt=0, le=1)
    include_stop_str_in_output: Optional[bool] = None
    guided_json: Optional[Dict[str, Any]] = None
    guided_regex: Optional[str] = None
    guided_choice: Optional[List[str]] = None
    guided_grammar: Optional[str] = None
    skip_special_tokens: Optional[bool] = True


class CompletionStreamV1Request(CompletionSyncV1Request):
    """Asks for a completion in pieces."""


class TokenOutput(Record):
    """A token and how likely it was."""

    token: str
    log_prob: float


class CompletionOutput(Record):
    """A whole completion."""

    text: str
    num_prompt_tokens: Optional[int] = None
    num_completion_tokens: int
    tokens: Optional[List[TokenOutput]] = None


class CompletionSyncV1Response(Record):
    """The answer with a whole completion."""

    request_id: str
    output: CompletionOutput


class CompletionStreamOutput(Record):
    """A piece of a completion."""

    text: str
    finished: bool
    num_prompt_tokens: Optional[int] = None
    num_completion_tokens: Optional[int] = None
    token: Optional[TokenOutput] = None


class CompletionStreamV1Response(Record):
    """A piece of the answer: one of a completion, or an error."""

    request_id: str
    output: Optional[CompletionStreamOutput] = None
    error: Optional[StreamError] = None


class TokenUsage(Record):
    """What an answer cost, and how long it took in seconds."""

    num_prompt_tokens: Optional[int] = 0
    num_completion_tokens: Optional[int] = 0
    total_duration: Optional[float] = None
    time_to_first_token: Optional[float] = None

    @property
    def num_total_tokens(self) -> int:
        """Prompt and completion together."""
        return (self.num_prompt_tokens or 0) + (self.num_completion_tokens or 0)

    @property
    def total_tokens_per_second(self) -> float:
        """0 where the time is not known."""
        return self.num_total_tokens / self.total_duration if self.total_duration else 0.0

    @property
    def inter_token_latency(self) -> Optional[float]:
        """Seconds from one token to the next; `None` where it can't be known."""
        if self.time_to_first_token is None or self.total_duration is None:
            return None
        tokens = self.num_completion_tokens
        if tokens is None or tokens < 2:
            return None
        return (self.total_duration - self.time_to_first_token) / (tokens - 1)


class CompletionV2Request(CreateCompletionRequest, VLLMCompletionAdditionalParams):
    """Asks for a completion, in version 2 of the API."""

    model: str
    stream: Optional[bool] = False
    top_k: Optional[int] = field(None, ge=-1)
    include_stop_str_in_output: Optional[bool] = None


class CompletionV2StreamErrorChunk(Record):
    """An error in place of the next piece."""

    error: StreamError


CompletionV2SyncResponse = CreateCompletionResponse
CompletionV2StreamSuccessChunk = CreateCompletionResponse
CompletionV2StreamChunk = Union[CompletionV2StreamSuccessChunk, CompletionV2StreamErrorChunk]
CompletionV2Response = CompletionV2SyncResponse
