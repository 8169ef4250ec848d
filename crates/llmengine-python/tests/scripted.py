"""A server that answers as a test says, and remembers what it was asked. It serves thousands of connections at once, in a
thread of its own."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from math import ceil

COMPLETION = {
    "request_id": "r-1",
    "output": {"text": " light", "num_prompt_tokens": 5, "num_completion_tokens": 1, "tokens": None},
}


@dataclass
class Asked:
    """One request."""

    at: float
    method: str
    path: str
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    """What comes back: after `delay` seconds, in `events` if it is a stream."""

    status: int = 200
    body: object = field(default_factory=lambda: COMPLETION)
    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    events: list = None


def refusal(retry_after=None, booked=False, **headers):
    """A 429, as our server says it."""
    error = {"code": "rate_limited", "policy": "per-key", "type": "rate_limit_error", "booked": booked}
    if retry_after is not None:
        milliseconds = str(max(0, ceil(retry_after * 1000)))
        headers = {"retry-after-ms": milliseconds, **headers}
        error["retry_after_ms"] = int(milliseconds)
    return Answer(429, {"detail": "Policy per-key says no.", "error": error}, headers)


def piece(text, finished=False, tokens=1):
    """An event of a stream."""
    output = {"text": text, "finished": finished, "num_completion_tokens": tokens}
    return {"request_id": "r-1", "output": output, "error": None}


class Scripted:
    """A context. `answer` is called with each `Asked` that is no cancel, and returns an `Answer`."""

    def __init__(self, answer):
        self._answer = answer if callable(answer) else (lambda asked: answer)
        self.asked = []
        self.cancels = []
        self.hangups = []

    def __enter__(self):
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *raised):
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    async def _serve(self, started):
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=4096)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await self._ended.wait()
        server.close()
        # Whoever has just come is let in first.
        await asyncio.sleep(0.02)
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connected(self, reader, writer):
        try:
            while True:
                asked = await self._read(reader)
                if asked.method == "DELETE" and asked.path.startswith("/v1/requests/"):
                    self.cancels.append(asked)
                    await self._write(writer, Answer(200, {}))
                    continue
                self.asked.append(asked)
                await self._write(writer, self._answer(asked), reader)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            # The transport goes within the loop's next round.
            await asyncio.sleep(0)

    async def _read(self, reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(time.monotonic(), method, path, headers, body)

    async def _write(self, writer, answer, reader=None):
        if answer.delay:
            # Meanwhile nothing comes but the end of the connection.
            try:
                await asyncio.wait_for(reader.read(1), answer.delay)
                self.hangups.append(time.monotonic())
                raise ConnectionError
            except asyncio.TimeoutError:
                pass
        lines = [f"HTTP/1.1 {answer.status} Said", *(f"{name}: {value}" for name, value in answer.headers.items())]
        if answer.events is None:
            body = json.dumps(answer.body).encode()
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            await writer.drain()
            return
        lines += ["content-type: text/event-stream", "transfer-encoding: chunked"]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        for event in answer.events:
            if event is None:
                writer.close()
                return
            if isinstance(event, (int, float)):
                try:
                    await asyncio.wait_for(reader.read(1), event)
                    self.hangups.append(time.monotonic())
                    raise ConnectionError
                except asyncio.TimeoutError:
                    continue
            data = f"data: {json.dumps(event)}\r\n\r\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class Bucket:
    """So many a second with a burst; refuses with the time until there is room."""

    def __init__(self, per_second, burst):
        self.per_second, self.burst = per_second, burst
        self._level, self._at = burst, time.monotonic()
        self.admitted = 0

    def __call__(self, asked):
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now
        if self._level < 1:
            return refusal((1 - self._level) / self.per_second + 0.001)
        self._level -= 1
        self.admitted += 1
        return Answer()


class Window:
    """So many calls per window, refused ones included; says when the window ends in `retry-after`."""

    def __init__(self, most, seconds):
        self.most, self.seconds = most, seconds
        self._begun, self._calls = None, 0
        self.admitted = 0

    def __call__(self, asked):
        now = time.monotonic()
        if self._begun is None or now >= self._begun + self.seconds:
            self._begun = now if self._begun is None else now - (now - self._begun) % self.seconds
            self._calls = 0
        self._calls += 1
        if self._calls > self.most:
            return refusal(self._begun + self.seconds - now)
        self.admitted += 1
        return Answer()
