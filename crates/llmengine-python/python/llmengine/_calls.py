"""From Python to the native part, which makes the calls: blocking, and for event loops."""

import asyncio
import atexit
import json
import os
from typing import Any, AsyncIterator, Callable, Generic, Iterator, List, Optional, Tuple, TypeVar

from . import _native

_Piece = TypeVar("_Piece")

# What is given up when the process ends is still told to the server, in so much time.
_LAST_WORDS_SECONDS = 1.0


def send(call: _native.Call) -> Any:
    """Makes a call; returns what the JSON of its answer says."""
    return read(call.send().body)


async def asend(call: _native.Call) -> Any:
    """The same for an event loop."""
    answer = await _awaited(call.start)
    return read(answer.body)


def read(body: bytes) -> Any:
    """What JSON says."""
    try:
        return json.loads(body)
    except ValueError:
        raise ValueError(f"Invalid JSON payload: {body[:1000].decode('utf-8', 'replace')}") from None


class Stream(Iterator[_Piece], Generic[_Piece]):
    """The pieces of an answer, as they come. Closed, or forgotten, before its end, the call is cancelled at the server."""

    def __init__(self, events: _native.Events, made: Callable[[Any], _Piece] = lambda piece: piece) -> None:
        self._events = events
        self._made = made
        self._ready: List[bytes] = []

    @property
    def request_id(self) -> Optional[str]:
        """What the server calls the request."""
        return self._events.request_id

    def __iter__(self) -> "Stream[_Piece]":
        return self

    def __next__(self) -> _Piece:
        if not self._ready:
            # The last first, so that taking one moves nothing.
            self._ready = self._events.next()[::-1]
            if not self._ready:
                raise StopIteration
        return self._made(read(self._ready.pop()))

    def close(self) -> None:
        """Gives it up."""
        self._ready = []
        self._events.close()

    def __enter__(self) -> "Stream[_Piece]":
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()


class AsyncStream(AsyncIterator[_Piece], Generic[_Piece]):
    """The same for an event loop."""

    def __init__(self, events: _native.Events, made: Callable[[Any], _Piece] = lambda piece: piece) -> None:
        self._events = events
        self._made = made
        self._ready: List[bytes] = []
        self._has_ended = False

    @property
    def request_id(self) -> Optional[str]:
        """What the server calls the request."""
        return self._events.request_id

    def __aiter__(self) -> "AsyncStream[_Piece]":
        return self

    async def __anext__(self) -> _Piece:
        if not self._ready and not self._has_ended:
            try:
                self._ready = (await _awaited(self._events.start_next))[::-1]
            except BaseException:
                await self.aclose()
                raise
        if not self._ready:
            self._has_ended = True
            raise StopAsyncIteration
        return self._made(read(self._ready.pop()))

    async def aclose(self) -> None:
        """Gives it up."""
        self._ready = []
        self._has_ended = True
        self._events.close()

    async def __aenter__(self) -> "AsyncStream[_Piece]":
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.aclose()


async def aopen(call: _native.Call) -> _native.Events:
    """Begins an answer in pieces."""
    events: _native.Events = await _awaited(call.start_open)
    return events


async def _awaited(start: Callable[[Any, Any], _native.Running]) -> Any:
    event_loop = asyncio.get_running_loop()
    future = event_loop.create_future()
    running = start(event_loop, future)
    try:
        return await future
    finally:
        # A task that is cancelled gives up its call.
        running.cancel()


def settle_all(settled: List[Tuple["asyncio.Future[Any]", Any, Optional[BaseException]]]) -> None:
    """Called in the event loop, with what is done."""
    for future, value, error in settled:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def _begin_anew() -> None:
    # A child that draws its parent's numbers waits exactly as long.
    _native.reseed(int.from_bytes(os.urandom(8), "little"))


def _end() -> None:
    _native.flush(_LAST_WORDS_SECONDS)
    _native.stop_deliveries()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
