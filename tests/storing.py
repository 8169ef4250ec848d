"""A server that keeps files and batches, in front of an upstream that says who it answers."""

import time

from server import Server, model_at
from upstream import Answer, Upstream

END_SECONDS = 60

# SHA-256 of `alice` and `bob`, who have their names for keys.
CALLERS = """
[callers.alice]
api_key_sha256 = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
[callers.bob]
api_key_sha256 = "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9"
"""


def said(request):
    """What was asked, without the model's template."""
    return request["prompt"] if "prompt" in request else request["messages"][-1]["content"]


def echo(asked, length=1):
    """Answers `p1` with `to p1`, several times."""
    if not asked.path.endswith("/completions"):
        return Answer({"object": "list", "data": []})
    text = f"to {said(asked.json)}" * length
    is_chat = asked.path.endswith("/chat/completions")
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
    choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    body = {"id": "c", "object": "chat.completion" if is_chat else "text_completion", "created": 1, "model": "upstream", "choices": [choice], "usage": usage}
    if asked.json.get("stream"):
        if is_chat:
            choice["delta"] = choice.pop("message")
        return Answer(iter([body, "[DONE]"]))
    return Answer(body)


class Storing:
    """The two together; a context."""

    def __init__(self, folder, policies=CALLERS, answer=echo, popen=None, url=None):
        """With a `url`, in front of that instead."""
        self._folder, self._policies, self._popen, self._url = folder, policies, popen, url
        self.upstream = Upstream()
        self.upstream.answer = answer

    def __enter__(self):
        self.upstream.__enter__()
        self._start(self._popen)
        return self

    def __exit__(self, *raised):
        self.server.__exit__(*raised)
        self.upstream.__exit__(*raised)

    def kill_and_restart(self):
        """On the same folder, as if the machine had lost its power."""
        self.server.kill()
        self._start(None)

    def _start(self, popen):
        model = model_at(self._url or self.upstream.url)
        state = self._folder / "state"
        self.server = Server(self._folder, self._policies, model, state_folder=state, popen=popen)
        self.server.__enter__()


def until(look, is_so):
    """Looks until it is so."""
    deadline = time.monotonic() + END_SECONDS
    while not is_so(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found
