"""An OpenAI-compatible server in place of a model: it answers at once unless a test has other answers for it, and remembers what
it was asked."""

import base64
import json
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from listener import Listener

COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "upstream",
    "choices": [{"index": 0, "text": " light", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "upstream",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Light."}, "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "upstream"}
VECTORS = [[0.25, -0.5, 0.0023064255], [1.0, 0.0, -0.009327292]]
GIVE_UP_SECONDS = 30


@dataclass
class Asked:
    """A request that has arrived."""

    path: str
    headers: dict
    body: bytes
    hung_up: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    """A body that is no text is sent as events, each when the iterator gives it."""

    body: object
    status: int = 200
    headers: dict = field(default_factory=dict)


def chunk(delta=None, finish_reason=None, **more):
    """A chunk of a chat."""
    return {**CHUNK, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish_reason, **more}]}


def answered(asked):
    """What is answered unless a test has something else."""
    if asked.path.endswith("/embeddings"):
        return Answer(embeddings(asked.json))
    if not asked.path.endswith("/completions"):
        # What the server asks to know whether somebody is there.
        return Answer({"object": "list", "data": []})
    is_chat = asked.path.endswith("/chat/completions")
    whole = CHAT if is_chat else COMPLETION
    if not asked.json.get("stream"):
        return Answer(whole)
    if not is_chat:
        # One event, which has the usage too.
        return Answer(iter([COMPLETION, "[DONE]"]))
    usage = {**CHUNK, "choices": [], "usage": CHAT["usage"]}
    return Answer(iter([chunk({"role": "assistant", "content": "Light."}), chunk({}, "stop"), usage, "[DONE]"]))


def embeddings(request):
    """As many vectors as texts, in the form that is asked for."""
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    vectors = [VECTORS[number % len(VECTORS)] for number in range(len(texts))]
    if request.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors]
    data = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "model": "upstream",
        "data": data,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


class Upstream(Listener):
    """Answers every request. A context."""

    def __init__(self):
        self._changed = threading.Condition()
        self.asked = []
        self.answer = answered

    @property
    def url(self):
        """What a deployment is configured with."""
        return f"{self.address}/v1"

    @property
    def prompts(self):
        """Those of completions, in the order in which they came."""
        return [asked.json["prompt"] for asked in self.asked]

    def forget(self):
        """Begins anew, for another test."""
        self.asked = []
        self.answer = answered

    def next(self, number=1):
        """The request of this number, once it has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= number, GIVE_UP_SECONDS)
            return self.asked[number - 1]

    def _handler_class(upstream):
        class Handler(BaseHTTPRequestHandler):
            # The server keeps its connections.
            protocol_version = "HTTP/1.1"
            # Else the body waits for the acknowledgement of the head.
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.path, dict(self.headers.items()), body)
                if asked.path.endswith(("/completions", "/embeddings")):
                    with upstream._changed:
                        upstream.asked.append(asked)
                        upstream._changed.notify_all()
                answer = upstream.answer(asked)
                try:
                    self._send(answer)
                except OSError:
                    asked.hung_up.set()
                    self.close_connection = True

            do_GET = do_POST

            def _send(self, answer):
                self.send_response(answer.status)
                is_whole = isinstance(answer.body, (dict, str))
                headers = {"Content-Type": "application/json" if is_whole else "text/event-stream", **answer.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                if is_whole:
                    body = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                # Its end is that of the connection.
                self.send_header("Connection", "close")
                self.end_headers()
                for event in answer.body:
                    text = event if isinstance(event, str) else json.dumps(event)
                    self.wfile.write(f"data: {text}\n\n".encode())

            def log_message(self, *_):
                pass

        return Handler
