"""An OpenAI-compatible server in place of a model: it answers at once, and remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler

from listener import Listener

ANSWER = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "upstream",
    "choices": [{"index": 0, "text": " light", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}
MESSAGE = {"role": "assistant", "content": " light"}
CHAT_ANSWER = {
    **ANSWER,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop", "logprobs": None}],
}


def stream(answer):
    """The answer as a stream of one event, which has the usage too."""
    choices = [{**choice, "delta": choice.get("message")} for choice in answer["choices"]]
    return f"data: {json.dumps({**answer, 'choices': choices})}\n\ndata: [DONE]\n\n"


class Upstream(Listener):
    """Answers every completion with one word. A context."""

    def __init__(self):
        self._asked = threading.Lock()
        self.prompts = []

    @property
    def url(self):
        """What a deployment is configured with."""
        return f"{self.address}/v1"

    def _handler_class(upstream):
        class Handler(BaseHTTPRequestHandler):
            # The server keeps its connections.
            protocol_version = "HTTP/1.1"
            # Else the body waits for the acknowledgement of the head.
            disable_nagle_algorithm = True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with upstream._asked:
                    upstream.prompts.append(body["messages"] if "messages" in body else body["prompt"])
                answer = CHAT_ANSWER if "messages" in body else ANSWER
                if body.get("stream"):
                    self._answer("text/event-stream", stream(answer))
                else:
                    self._answer("application/json", json.dumps(answer))

            def do_GET(self):
                # What the server asks to know whether somebody is there.
                self._answer("application/json", json.dumps({"object": "list", "data": []}))

            def _answer(self, content_type, text):
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler
