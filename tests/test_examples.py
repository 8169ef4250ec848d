"""The two examples that LLM Engine publishes, as they are, in a process of their own."""

import os
import subprocess
import sys

import pytest
from pressure import Pressure
from relay import Relay
from server import REPOSITORY, Server

EXAMPLES = ["with_tenacity.py", "with_backoff.py"]

# The examples cost 100 output tokens and their prompt; the other work, about 30 in all. While that goes on, the level never
# reaches what an example costs: it is refused, for certain. When it has ended, 40 tokens come back each second, so
# that an example fits within 4 s, and the sixth attempt with tenacity comes after 5 s at the earliest.
LIMITED = """
[[policies]]
name = "per-key"
per = ["key"]
tokens = { limit = 2400, window = "1m", burst = 240 }
"""


def start(example, address):
    settings = {"LLM_ENGINE_BASE_PATH": address, "LLM_ENGINE_DISABLE_VERSION_CHECK": "true"}
    environment = {name: value for name, value in os.environ.items() if name != "SCALE_API_KEY"}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "examples" / example)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **settings},
    )


def finish(process, timeout):
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert any(word in output.lower() for word in ("sky", "blue", "light")), output


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_gets_an_answer(server, example):
    finish(start(example, server.address), timeout=60)


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_gets_an_answer_while_its_key_is_being_limited(tmp_path, example):
    with Server(tmp_path, LIMITED) as server, Relay(server.address) as relay:
        with Pressure(server.address) as pressure:
            assert pressure.wait_until_refused(30), pressure.statuses
            process = start(example, relay.address)
            refused = relay.wait_for(429, 30)
        finish(process, timeout=75)
    assert refused, f"the example met no refusal: {relay.statuses}"
    assert relay.statuses[-1] == 200
    assert set(relay.statuses) == {200, 429}
    assert set(pressure.statuses) == {200, 429}
