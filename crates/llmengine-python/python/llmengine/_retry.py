"""Retries of any function."""

import asyncio
import functools
import inspect
import time
from types import CoroutineType
from typing import Any, Callable, Optional, Tuple, Type, TypeVar, Union

from ._hints import hint_of
from ._native import Attempts, Backoff, Budget, Stop
from .errors import GaveUpError

F = TypeVar("F", bound=Callable[..., Any])
On = Union[Type[BaseException], Tuple[Type[BaseException], ...], Callable[[BaseException], bool]]

ATTEMPTS = 6
LONGEST_HINT_SECONDS = 120.0


def retry(
    function: Optional[Callable[..., Any]] = None,
    *,
    on: Optional[On] = None,
    on_result: Optional[Callable[[Any], bool]] = None,
    wait: Optional[Backoff] = None,
    stop: Optional[Stop] = None,
    max_attempts: Optional[int] = None,
    deadline: Optional[float] = None,
    longest_hint: float = LONGEST_HINT_SECONDS,
    count_hinted: bool = True,
    budget: Optional[Budget] = None,
    before_wait: Optional[Callable[[BaseException, float], Any]] = None,
    sleep: Optional[Callable[[float], Any]] = None,
    seed: Optional[int] = None,
) -> Any:
    """Calls a function again until it succeeds, or no other attempt is to be made; then raises what it raised last.

    For functions, methods and coroutine functions, used as `@retry` or `@retry(...)`. An exception that says when to come back (by
    `retry_after`, or by the headers of its `response`) is believed. The exception that is raised in the end has the record of all
    that was tried as its `attempts`, and why there was no more as `gave_up`.

    Args:
        function: What to call.
        on: What is tried again: an exception class, several, or a function that says so of an exception. By default every
            `Exception` but those that say of themselves that another attempt would fail as well (`is_transient = False`).
        on_result: A function that says of a result that it is not good enough. If it never is, `GaveUpError` is raised.
        wait: How long to wait; `Backoff.default()` by default.
        stop: When to stop; after six attempts by default.
        max_attempts: Attempts in all; combined with `stop` where both are given.
        deadline: Seconds after the call from which on no attempt begins.
        longest_hint: Gives up at once when asked to wait for longer than so many seconds.
        count_hinted: Whether attempts that were told when to come back count.
        budget: Bounds the retries of all that share it, so that an outage is not made worse.
        before_wait: Called with the exception, and the seconds until the next attempt.
        sleep: What waits instead of `time.sleep` and `asyncio.sleep`.
        seed: For tests: the same waits each time.

    Generator functions are refused: what they do happens when they are iterated over, after the call.

    >>> @retry(on=ConnectionError, wait=Backoff.constant(0), max_attempts=3)
    ... def fetch():
    ...     return "there"
    >>> fetch()
    'there'
    """
    if max_attempts is not None:
        most = Stop.after_attempts(max_attempts)
        stop = most if stop is None else stop | most
    elif stop is None:
        stop = Stop.after_attempts(ATTEMPTS) if deadline is None else Stop.never()
    policy = _Policy(on, on_result, wait or Backoff.default(), stop, deadline)
    policy.longest_hint = longest_hint
    policy.count_hinted = count_hinted
    policy.budget = budget
    policy.before_wait = before_wait
    policy.sleep = sleep
    policy.seed = seed
    if function is None:
        return policy.decorate
    return policy.decorate(function)


class _Policy:
    """What was given to `retry`."""

    def __init__(
        self,
        on: Optional[On],
        on_result: Optional[Callable[[Any], bool]],
        wait: Backoff,
        stop: Stop,
        deadline: Optional[float],
    ) -> None:
        self.caught: Any = on if _is_class(on) else Exception
        self.is_tried_again: Optional[Callable[[BaseException], bool]] = _asked(on)
        self.on_result = on_result
        self.wait = wait
        self.stop = stop
        self.deadline = deadline
        self.longest_hint = LONGEST_HINT_SECONDS
        self.count_hinted = True
        self.budget: Optional[Budget] = None
        self.before_wait: Optional[Callable[[BaseException, float], Any]] = None
        self.sleep: Optional[Callable[[float], Any]] = None
        self.seed: Optional[int] = None

    def decorate(self, function: F) -> F:
        plain: Any = function
        while isinstance(plain, functools.partial):
            plain = plain.func
        call = getattr(type(plain), "__call__", None)
        if isinstance(plain, (staticmethod, classmethod)):
            raise TypeError(f"put @retry below @{type(plain).__name__}, next to the function")
        if inspect.isgeneratorfunction(plain) or inspect.isgeneratorfunction(call):
            raise TypeError(_no_generators(plain, "a generator function", "for"))
        if inspect.isasyncgenfunction(plain) or inspect.isasyncgenfunction(call):
            raise TypeError(_no_generators(plain, "an async generator function", "async for"))
        if not callable(function):
            raise TypeError(f"{function!r} can't be called, so it can't be called again")
        if inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(call):
            return self._decorate_async(function)
        return self._decorate_sync(function)

    def _decorate_sync(self, function: F) -> F:
        # All that happens at each call stands in these functions: most calls succeed at once.
        caught, now, coroutine = self.caught, time.monotonic, CoroutineType

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            began = now()
            try:
                result = function(*args, **kwargs)
            except caught as error:
                failed = error
            else:
                if type(result) is coroutine:
                    # Nothing has said that the function makes coroutines, but it does.
                    return self._finish_awaiting(function, args, kwargs, result, began)
                return result
            try:
                return self._run(function, args, kwargs, began, failed)
            finally:
                # Else it would hold the frame that holds it.
                del failed

        @functools.wraps(function)
        def called_and_looked_at(*args: Any, **kwargs: Any) -> Any:
            began = now()
            if self.budget is not None:
                self.budget.request()
            try:
                result = function(*args, **kwargs)
                if type(result) is coroutine:
                    return self._finish_awaiting(function, args, kwargs, result, began)
                if self._is_good(result):
                    return result
                failed: BaseException = _not_good_enough(result)
            except caught as error:
                failed = error
            try:
                return self._run(function, args, kwargs, began, failed)
            finally:
                del failed

        return called_and_looked_at if self._looks_at_calls() else called  # type: ignore[return-value]

    def _decorate_async(self, function: F) -> F:
        caught, now = self.caught, time.monotonic

        @functools.wraps(function)
        async def called(*args: Any, **kwargs: Any) -> Any:
            began = now()
            try:
                return await function(*args, **kwargs)
            except caught as error:
                failed = error
            try:
                return await self._run_async(function, args, kwargs, began, failed)
            finally:
                del failed

        @functools.wraps(function)
        async def called_and_looked_at(*args: Any, **kwargs: Any) -> Any:
            if self.budget is not None:
                self.budget.request()
            return await self._finish_awaiting(function, args, kwargs, function(*args, **kwargs), now())

        return called_and_looked_at if self._looks_at_calls() else called  # type: ignore[return-value]

    def _looks_at_calls(self) -> bool:
        return self.on_result is not None or self.budget is not None

    def _is_good(self, result: Any) -> bool:
        return self.on_result is None or not self.on_result(result)

    async def _finish_awaiting(self, function: Any, args: Any, kwargs: Any, begun: Any, began: float) -> Any:
        try:
            result = await begun
            if self._is_good(result):
                return result
            failed: BaseException = _not_good_enough(result)
        except self.caught as error:
            failed = error
        try:
            return await self._run_async(function, args, kwargs, began, failed)
        finally:
            del failed

    def _run(self, function: Any, args: Any, kwargs: Any, began: float, failed: BaseException) -> Any:
        course = _Course(self, began)
        try:
            while True:
                self._pause(course.next_wait(failed), failed)
                course.begin()
                try:
                    result = function(*args, **kwargs)
                    if self._is_good(result):
                        return result
                    failed = _not_good_enough(result)
                except self.caught as error:
                    failed = error
        finally:
            del failed

    async def _run_async(
        self, function: Any, args: Any, kwargs: Any, began: float, failed: BaseException
    ) -> Any:
        course = _Course(self, began)
        try:
            while True:
                await self._pause_async(course.next_wait(failed), failed)
                course.begin()
                try:
                    result = await function(*args, **kwargs)
                    if self._is_good(result):
                        return result
                    failed = _not_good_enough(result)
                except self.caught as error:
                    failed = error
        finally:
            del failed

    def _pause(self, wait: float, failed: BaseException) -> None:
        if self.before_wait is not None:
            self.before_wait(failed, wait)
        (self.sleep or time.sleep)(wait)

    async def _pause_async(self, wait: float, failed: BaseException) -> None:
        if self.before_wait is not None:
            self.before_wait(failed, wait)
        if self.sleep is None:
            await asyncio.sleep(wait)
            return
        slept = self.sleep(wait)
        if inspect.isawaitable(slept):
            await slept


class _Course:
    """One call that is tried again, from its first failure on."""

    def __init__(self, policy: _Policy, began: float) -> None:
        self._policy = policy
        self._began = began
        self._attempts = Attempts(
            policy.wait,
            policy.stop,
            deadline=policy.deadline,
            longest_hint=policy.longest_hint,
            counts_hinted=policy.count_hinted,
            budget=policy.budget,
            seed=policy.seed,
        )
        # It has begun already, and failed.
        self._attempts.begin(0.0)

    def begin(self) -> None:
        """Another attempt begins."""
        self._attempts.begin(time.monotonic() - self._began)

    def next_wait(self, failed: BaseException) -> float:
        """How long until the next attempt. If there is none, raises what failed."""
        policy = self._policy
        hint = hint_of(failed)
        asked = policy.is_tried_again
        wait = self._attempts.end(
            time.monotonic() - self._began,
            f"{type(failed).__name__}: {failed}",
            hint=None if hint is None else hint.after,
            is_booked=hint is not None and hint.is_booked,
            is_permanent=asked is not None and not isinstance(failed, GaveUpError) and not asked(failed),
        )
        if wait is not None:
            return wait
        try:
            failed.attempts = self._attempts.take_records()  # type: ignore[attr-defined]
            failed.gave_up = self._attempts.reason  # type: ignore[attr-defined]
        except AttributeError:
            # It has no place for more than it brought.
            pass
        try:
            raise failed
        finally:
            del failed


def _is_class(on: Any) -> bool:
    return isinstance(on, tuple) or (isinstance(on, type) and issubclass(on, BaseException))


def _asked(on: Any) -> Optional[Callable[[BaseException], bool]]:
    """Whether an exception is tried again; `None` if all are that are caught."""
    if on is None:
        return lambda error: getattr(error, "is_transient", None) is not False
    return None if _is_class(on) else on


def _not_good_enough(result: Any) -> GaveUpError:
    return GaveUpError(f"the result was not good enough: {result!r:.200}", result)


def _no_generators(function: Any, what: str, word: str) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return (
        f"{name} is {what}: calling it only prepares what happens later, in the `{word}` loop over it, where it can't be tried "
        "again. Retry what it calls, or return a whole result."
    )
