"""Chats, in version 2 of the API."""

from typing import Optional, Union

from .._record import Record, field
from .core import StreamError
from .openai import (
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse,
)
from .vllm import VLLMChatCompletionAdditionalParams


class ChatCompletionV2Request(CreateChatCompletionRequest, VLLMChatCompletionAdditionalParams):
    """Asks for the next message of a chat."""

    model: str
    stream: Optional[bool] = False
    top_k: Optional[int] = field(None, ge=-1)
    include_stop_str_in_output: Optional[bool] = None


class ChatCompletionV2StreamErrorChunk(Record):
    """An error in place of the next piece."""

    error: StreamError


ChatCompletionV2SyncResponse = CreateChatCompletionResponse
ChatCompletionV2StreamSuccessChunk = CreateChatCompletionStreamResponse
ChatCompletionV2Chunk = Union[ChatCompletionV2StreamSuccessChunk, ChatCompletionV2StreamErrorChunk]
ChatCompletionV2Response = ChatCompletionV2SyncResponse
