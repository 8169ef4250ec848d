"""What calls do unless they say otherwise."""

import math
from typing import Optional


class Defaults:
    """What calls do unless they say otherwise; `llmengine.defaults` is the one that counts.

    >>> import llmengine
    >>> llmengine.defaults.max_retries = 8
    """

    def __init__(self) -> None:
        self.max_retries: int = 5
        """Attempts after the first one; 0 for none."""
        self.timeout: Optional[float] = 300.0
        """Seconds for a completion in all, waits and attempts together; `None` for no end."""
        self.short_timeout: Optional[float] = 60.0
        """The same for all other calls."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"Defaults({fields})"


defaults = Defaults()


def in_seconds(timeout: Optional[float]) -> float:
    """Without a timeout, for ever."""
    return math.inf if timeout is None else timeout
