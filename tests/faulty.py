"""An OpenAI-compatible server that fails in every way that the tests ask for, and knows who was answered how often."""

import asyncio
import json
import random
import threading
from collections import Counter

# A header that nobody else sends on this port says what the server knows already.
HEAD = "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"


class Faulty:
    """A context. Answers to a key are kept until `restart`, and said again to who asks with it again."""

    def __init__(self, seconds=0.02, failed=0.0, cut=0.0, per_second=None, seed=1, text=None):
        self._seconds, self._failed, self._cut = seconds, failed, cut
        # How many may be admitted, since when, and whether there is a storm just now: nobody is admitted in one.
        self._per_second, self._admitted, self._since = per_second, 0, None
        self.storm = False
        self._random = random.Random(seed)
        self._text = text or (lambda body: f"to {prompt_of(body)}")
        self._stored = {}
        self.generated, self.answered, self.refused, self.calls = Counter(), Counter(), 0, 0
        self.models = Counter()
        self.keys = Counter()
        self._port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *raised):
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def restart(self, down=0.5):
        """Goes away with all connections and all that is known, and comes back."""
        self._do(self._close())
        self._stored.clear()
        self._do(asyncio.sleep(down))
        self._do(self._open())

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self):
        self._tasks = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self):
        self._server.close()
        # A connection that was accepted just now becomes a task a little later.
        for _ in range(3):
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.01)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.transport.abort()

    async def _exchange(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not lines[0].startswith("POST"):
            self._answer(writer, 404, {"error": {"message": "nothing here"}})
            return True
        return await self._post(writer, headers, json.loads(body))

    async def _post(self, writer, headers, body):
        prompt, key = prompt_of(body), headers.get("idempotency-key")
        self.calls += 1
        self.models[body["model"]] += 1
        self.keys[headers.get("authorization")] += 1
        if not self._admits():
            self.refused += 1
            wait = {"retry-after-ms": "300"}
            self._answer(writer, 429, {"error": {"code": "rate_limited", "message": "too many"}}, wait)
            return True
        if key not in self._stored:
            await asyncio.sleep(self._seconds * self._random.uniform(0.5, 1.5))
            fate = self._random.random()
            if fate < self._failed:
                self._answer(writer, 500, {"error": {"message": "it broke"}})
                return True
            self.generated[prompt] += 1
            self._stored[key] = self._completion(body)
            is_new = True
        else:
            is_new = False
        if self._random.random() < self._cut:
            return False
        self._answer(writer, 200, self._stored[key], {} if is_new else {"x-llm-engine-replayed": "true"})
        await writer.drain()
        self.answered[prompt] += 1
        return True

    def _admits(self):
        if self.storm:
            return False
        if self._per_second is None:
            return True
        now = self._loop.time()
        self._since = now if self._since is None else self._since
        if self._admitted + 1 > (now - self._since + 0.1) * self._per_second:
            return False
        self._admitted += 1
        return True

    def _completion(self, body):
        message = {"role": "assistant", "content": self._text(body)}
        return {
            "id": "c", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        }  # fmt: skip

    @staticmethod
    def _answer(writer, status, body, headers=None):
        body = json.dumps(body).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(HEAD.format(status=status, length=len(body), headers=lines).encode() + body)


def prompt_of(body):
    return body["messages"][-1]["content"]
