"""When to come back, as an exception says it."""

import datetime
import math
from typing import Any, Mapping, NamedTuple, Optional

from ._native import hint_from_headers


class Hint(NamedTuple):
    """A wait in seconds, and whether its end is kept for this caller alone."""

    after: float
    is_booked: bool


def hint_of(raised: Any) -> Optional[Hint]:
    """What an exception, or an answer, says about when to come back: by its `retry_after`, in seconds or as a `timedelta`; or by the
    headers of its `response`, as the exceptions of `requests`, `httpx` and OpenAI's client have one."""
    after = _seconds(getattr(raised, "retry_after", None))
    if after is not None:
        return Hint(after, bool(getattr(raised, "is_booked", False)))
    headers = getattr(getattr(raised, "response", raised), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    after = hint_from_headers({str(name).lower(): str(value) for name, value in headers.items()})
    return None if after is None else Hint(after, False)


def held_for(raised: Any) -> float:
    """For how many seconds all calls are held that would stand in the line of the one that raised this."""
    line = getattr(raised, "_line", None)
    return 0.0 if line is None else float(line.held_for())


def _seconds(value: Any) -> Optional[float]:
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
