"""What goes wrong, as exceptions.

Their names, what they are raised for, and how they are made are the published client's. Beyond those, every one of them says
what is known: see `LLMEngineError`.
"""

import json
from typing import Any, List, Optional, Sequence, Union

from ._native import Attempt

__all__ = (
    "APIConnectionError",
    "BadRequestError",
    "BudgetExhaustedError",
    "DeadlineExceededError",
    "GaveUpError",
    "LLMEngineError",
    "NotFoundError",
    "RateLimitExceededError",
    "ServerError",
    "StreamInterruptedError",
    "UnauthorizedError",
    "UnknownError",
    "ValidationError",
    "parse_error",
)


class LLMEngineError(Exception):
    """Anything that goes wrong with LLM Engine."""

    status_code: Optional[int] = None
    """The HTTP status of the last answer, if there was one."""
    code: Optional[str] = None
    """The server's word for it, such as `rate_limited`: stable, for programs."""
    policy: Optional[str] = None
    """The policy that refused."""
    retry_after: Optional[float] = None
    """In how many seconds to come back, as the server said it with its last answer."""
    is_booked: bool = False
    """Whether that time is kept for this caller alone."""
    is_transient: bool = False
    """Whether the same call may succeed at another time."""
    request_id: Optional[str] = None
    """What the server calls the last request: `llm-engine explain` takes it."""
    attempts: Sequence[Attempt] = ()
    """Every attempt that was made and failed, the first one first."""
    gave_up: Optional[str] = None
    """Why there was no other attempt."""
    _line: Any = None

    def __reduce__(self) -> Any:
        # What goes to another process leaves its line behind.
        fields = {name: value for name, value in self.__dict__.items() if name != "_line"}
        return (_remade, (type(self), self.args, fields))


class ValidationError(LLMEngineError, ValueError):
    """A request, or an answer, has fields that can't be as they are."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class BadRequestError(LLMEngineError):
    """The request is wrong: HTTP 400. It would fail again."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class UnauthorizedError(LLMEngineError):
    """There was no key, or one that the server does not know: HTTP 401."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class NotFoundError(LLMEngineError):
    """There is no such model, file or job, or not for this key: HTTP 404."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class RateLimitExceededError(LLMEngineError):
    """Refused for now, by a limit or because the models are full: HTTP 429. `retry_after` says when to come back."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ServerError(LLMEngineError):
    """The server, or what is behind it, failed: HTTP 5xx."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(f"Server exception with {status_code=}, {message=}")
        self.status_code = status_code


class UnknownError(LLMEngineError):
    """An answer of any other status."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class BudgetExhaustedError(UnknownError):
    """A budget is spent, and nothing comes back soon: HTTP 402. It is not tried again."""


class APIConnectionError(LLMEngineError, ConnectionError):
    """The server can't be reached, or the connection broke before there was an answer."""


class StreamInterruptedError(APIConnectionError):
    """A stream ended early, after a part of it had been handed out: so it was not tried again."""


class DeadlineExceededError(LLMEngineError, TimeoutError):
    """The call's time was over before there was an answer."""


class GaveUpError(LLMEngineError):
    """What `retry` raises if the last result was still not good enough: `result` has it."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


def parse_error(status_code: int, content: bytes) -> LLMEngineError:
    """The exception for an answer of this status and body."""
    try:
        message = json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError):
        message = content.decode("utf-8", "replace")
    error = _of_status(status_code, message)
    error.status_code = status_code
    return error


def _of_status(status_code: int, message: str) -> LLMEngineError:
    if status_code == 400:
        return BadRequestError(message)
    if status_code == 401:
        return UnauthorizedError(message)
    if status_code == 402:
        return BudgetExhaustedError(message)
    if status_code == 404:
        return NotFoundError(message)
    if status_code == 429:
        return RateLimitExceededError(message)
    if 500 <= status_code < 600:
        return ServerError(status_code, message)
    return UnknownError(message)


def _of_failure(
    kind: str,
    message: str,
    gave_up: str,
    status_code: Optional[int],
    code: Optional[str],
    policy: Optional[str],
    retry_after: Optional[float],
    is_booked: bool,
    is_transient: bool,
    request_id: Optional[str],
    attempts: List[Attempt],
    line: Any,
) -> Union[LLMEngineError, ValueError]:
    """The exception for a call that failed. Called by the native part."""
    if len(attempts) > 1:
        message = f"{message} (gave up after {len(attempts)} attempts: {gave_up})"
    error: LLMEngineError
    if kind == "deadline":
        error = DeadlineExceededError(message)
    elif kind == "broken_off":
        error = StreamInterruptedError(message)
    elif status_code is not None and status_code >= 300:
        error = _of_status(status_code, message)
    elif kind == "connection":
        error = APIConnectionError(message)
    elif kind == "refused":
        error = RateLimitExceededError(message)
    elif kind == "invalid":
        error = BadRequestError(message)
    elif kind == "server":
        error = ServerError(500, message)
    else:
        error = UnknownError(message)
    error.status_code = status_code
    error.code = code
    error.policy = policy
    error.retry_after = retry_after
    error.is_booked = is_booked
    error.is_transient = is_transient
    error.request_id = request_id
    error.attempts = attempts
    error.gave_up = gave_up
    error._line = line
    return error


def _remade(cls: Any, args: Any, fields: Any) -> LLMEngineError:
    error: LLMEngineError = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error
