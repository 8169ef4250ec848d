"""OpenAI's messages, as far as they are looked at; the rest is kept as it comes."""

from typing import Any, Dict, List, Optional, Union

from .._record import Record, field


class OpenRecord(Record):
    """A message of which not every field is known here."""

    _keeps_unknown = True


class CreateChatCompletionRequest(OpenRecord):
    """Asks for the next message of a chat."""

    messages: List[Dict[str, Any]]
    model: str
    frequency_penalty: Optional[float] = field(0, ge=-2, le=2)
    logit_bias: Optional[Dict[str, int]] = None
    logprobs: Optional[bool] = False
    top_logprobs: Optional[int] = field(None, ge=0, le=20)
    max_completion_tokens: Optional[int] = None
    max_tokens: Optional[int] = None
    n: Optional[int] = field(1, ge=1, le=128)
    presence_penalty: Optional[float] = field(0, ge=-2, le=2)
    response_format: Optional[Dict[str, Any]] = None
    seed: Optional[int] = None
    stop: Union[None, str, List[str]] = None
    stream: Optional[bool] = False
    stream_options: Optional[Dict[str, Any]] = None
    temperature: Optional[float] = field(1, ge=0, le=2)
    top_p: Optional[float] = field(1, ge=0, le=1)
    tools: Optional[List[Dict[str, Any]]] = None
    tool_choice: Union[None, str, Dict[str, Any]] = None
    user: Optional[str] = None


class CreateCompletionRequest(OpenRecord):
    """Asks for what comes after a prompt."""

    model: str
    prompt: Union[str, List[Any]]
    best_of: Optional[int] = field(1, ge=0, le=20)
    echo: Optional[bool] = False
    frequency_penalty: Optional[float] = field(0, ge=-2, le=2)
    logit_bias: Optional[Dict[str, int]] = None
    logprobs: Optional[int] = field(None, ge=0, le=5)
    max_tokens: Optional[int] = field(16, ge=0)
    n: Optional[int] = field(1, ge=1, le=128)
    presence_penalty: Optional[float] = field(0, ge=-2, le=2)
    seed: Optional[int] = None
    stop: Union[None, str, List[str]] = None
    stream: Optional[bool] = False
    stream_options: Optional[Dict[str, Any]] = None
    suffix: Optional[str] = None
    temperature: Optional[float] = field(1, ge=0, le=2)
    top_p: Optional[float] = field(1, ge=0, le=1)
    user: Optional[str] = None


class CompletionUsage(OpenRecord):
    """What an answer cost."""

    completion_tokens: int
    prompt_tokens: int
    total_tokens: int


class ChatMessage(OpenRecord):
    """A message of a chat."""

    role: Optional[str] = None
    content: Optional[str] = None


class ChatChoice(OpenRecord):
    """One of the answers of a chat, whole or a piece."""

    index: int
    finish_reason: Optional[str] = None
    message: Optional[ChatMessage] = None
    delta: Optional[ChatMessage] = None


class CreateChatCompletionResponse(OpenRecord):
    """The next message of a chat."""

    id: str
    choices: List[ChatChoice]
    created: int
    model: str
    usage: Optional[CompletionUsage] = None


class CreateChatCompletionStreamResponse(CreateChatCompletionResponse):
    """A piece of it."""


class CompletionChoice(OpenRecord):
    """One of the texts that come after a prompt."""

    index: int
    text: str
    finish_reason: Optional[str] = None


class CreateCompletionResponse(OpenRecord):
    """What comes after a prompt."""

    id: str
    choices: List[CompletionChoice]
    created: int
    model: str
    usage: Optional[CompletionUsage] = None
