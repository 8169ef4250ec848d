"""Waits for those who keep `tenacity` or `backoff`. Neither is imported unless it is there already, or asked for."""

from typing import Any, Callable, Generator, Union

from ._hints import held_for, hint_of
from ._native import Backoff

Fallback = Union[None, float, Backoff, Callable[[Any], float]]


class wait_for_hint:
    """A wait strategy for `tenacity`: what the server said about when to come back, or else `fallback`.

    The time that is kept for this call alone is met exactly. Another one many may have been told: it takes the place of the
    fallback's least wait, and what is random in the fallback comes on top of it. No wait ends while all calls of the process to
    that model are held.

    `fallback` is a number of seconds, a `Backoff`, or one of tenacity's strategies; `Backoff.default()` if nothing is given. It can
    be added to others: `wait_for_hint() + wait_random(0, 1)`.

    >>> import llmengine, tenacity  # doctest: +SKIP
    >>> @tenacity.retry(wait=llmengine.wait_for_hint(), stop=tenacity.stop_after_attempt(6))  # doctest: +SKIP
    ... def complete(**kwargs):
    ...     return llmengine.Completion.create(**kwargs, max_retries=0)
    """

    def __init__(self, fallback: Fallback = None) -> None:
        self.fallback: Any = Backoff.default() if fallback is None else fallback

    def __call__(self, retry_state: Any) -> float:
        outcome = retry_state.outcome
        failed = None if outcome is None else (outcome.exception() if outcome.failed else outcome.result())
        return _wait(failed, self.fallback, lambda: self._fallback_wait(retry_state))

    def _fallback_wait(self, retry_state: Any) -> float:
        if isinstance(self.fallback, Backoff):
            return self.fallback.wait(max(1, retry_state.attempt_number))
        if callable(self.fallback):
            return float(self.fallback(retry_state))
        return float(self.fallback)

    def __add__(self, other: Any) -> Any:
        from tenacity.wait import wait_combine

        return wait_combine(self, other)

    def __radd__(self, other: Any) -> Any:
        # sum() begins with 0.
        if other == 0:
            return self
        from tenacity.wait import wait_combine

        return wait_combine(other, self)

    def __repr__(self) -> str:
        return f"wait_for_hint(fallback={self.fallback!r})"


def hinted(fallback: Fallback = None) -> Generator[float, Any, None]:
    """A wait generator for `backoff`: what the server said about when to come back, or else `fallback`, as `wait_for_hint` does it.

    Say `jitter=None` with it. `backoff` otherwise takes a random part of the wait, and comes too early for what it was told; what
    is random is in the fallback. `fallback` is a number of seconds or a `Backoff`.

    >>> import backoff, llmengine  # doctest: +SKIP
    >>> @backoff.on_exception(
    ...     llmengine.hinted, llmengine.errors.RateLimitExceededError, jitter=None, max_tries=6
    ... )  # doctest: +SKIP
    ... def complete(**kwargs):
    ...     return llmengine.Completion.create(**kwargs, max_retries=0)
    """
    recipe = Backoff.default() if fallback is None else fallback
    if not isinstance(recipe, Backoff):
        recipe = Backoff.constant(float(recipe))  # type: ignore[arg-type]
    waits = recipe.waits()
    # The first value that is sent is none, and what is yielded for it goes nowhere.
    failed = yield 0.0
    while True:
        failed = yield _wait(failed, recipe, lambda: next(waits))


def _wait(failed: Any, fallback: Any, fallback_wait: Callable[[], float]) -> float:
    hint = hint_of(failed)
    held = held_for(failed)
    if hint is None:
        return max(held, fallback_wait())
    if hint.is_booked:
        return hint.after
    least = fallback.least if isinstance(fallback, Backoff) else 0.0
    spread = 0.0 if isinstance(fallback, (int, float)) else max(0.0, fallback_wait() - least)
    return max(hint.after, held) + spread
