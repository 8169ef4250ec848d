"""For those who keep tenacity or backoff: the server's hint as one of their waits."""

import subprocess
import sys

import backoff
import pytest
import tenacity
from scripted import Answer, refusal

QUESTION = {"model": "llama-7b", "prompt": "Why?", "max_new_tokens": 10, "temperature": 0.2, "max_retries": 0}


@pytest.fixture
def refusing(client, scripted):
    """A client whose first two calls are refused, with hints of 0.3 s and 0.2 s; and the server."""
    answers = iter([refusal(0.3, booked=True), refusal(0.2, booked=True), Answer()])
    server = scripted(lambda asked: next(answers))
    return client(server.address), server


def gaps(server):
    return [after.at - before.at for before, after in zip(server.asked, server.asked[1:])]


def test_tenacity_waits_as_it_is_told(refusing):
    llmengine, server = refusing
    decorate = tenacity.retry(wait=llmengine.wait_for_hint(fallback=30), stop=tenacity.stop_after_attempt(6))
    assert decorate(llmengine.Completion.create)(**QUESTION).output.text == " light"
    assert gaps(server) == [pytest.approx(0.3, abs=0.1), pytest.approx(0.2, abs=0.1)]


def test_it_adds_up_with_tenacity_s_strategies(refusing):
    llmengine, server = refusing
    wait = tenacity.wait_fixed(0.1) + llmengine.wait_for_hint() + tenacity.wait_fixed(0.1)
    assert isinstance(wait, tenacity.wait.wait_base)
    assert sum([llmengine.wait_for_hint(), tenacity.wait_fixed(1)]) is not None
    assert tenacity.retry(wait=wait)(llmengine.Completion.create)(**QUESTION).output.text == " light"
    assert gaps(server) == [pytest.approx(0.5, abs=0.1), pytest.approx(0.4, abs=0.1)]


def test_backoff_waits_as_it_is_told(refusing):
    llmengine, server = refusing
    decorate = backoff.on_exception(
        llmengine.hinted, llmengine.errors.RateLimitExceededError, jitter=None, max_tries=6, fallback=30
    )
    assert decorate(llmengine.Completion.create)(**QUESTION).output.text == " light"
    assert gaps(server) == [pytest.approx(0.3, abs=0.1), pytest.approx(0.2, abs=0.1)]


def test_without_a_hint_the_fallback_is_waited():
    import llmengine

    def failing():
        raise ConnectionError

    for fallback, most in [(0.25, 0.25), (llmengine.Backoff.constant(0.25), 0.25), (tenacity.wait_fixed(0.25), 0.25)]:
        slept = []
        retrying = tenacity.retry(
            wait=llmengine.wait_for_hint(fallback), stop=tenacity.stop_after_attempt(3), sleep=slept.append, reraise=True
        )
        with pytest.raises(ConnectionError):
            retrying(failing)()
        assert slept == [most, most]
    waits = llmengine.hinted(fallback=llmengine.Backoff.exponential(1, 2))
    waits.send(None)
    assert [waits.send(ConnectionError()) for _ in range(3)] == [1, 2, 4]


def test_a_hint_that_many_have_got_is_spread():
    import llmengine

    error = llmengine.errors.RateLimitExceededError("no")
    error.retry_after = 5.0
    waits = llmengine.hinted()
    waits.send(None)
    drawn = [waits.send(error) for _ in range(50)]
    assert min(drawn) >= 5
    assert len(set(drawn)) > 10


def test_no_wait_ends_while_all_calls_to_the_model_are_held(client, scripted):
    hints = iter([0.1, 5.0])
    llmengine = client(scripted(lambda asked: refusal(next(hints))).address)

    def refused():
        with pytest.raises(llmengine.errors.RateLimitExceededError) as raised:
            llmengine.Completion.create(**QUESTION)
        return raised.value

    first = refused()
    refused()
    waits = llmengine.hinted(fallback=0.1)
    waits.send(None)
    assert waits.send(first) == pytest.approx(5, abs=0.2)


def test_neither_is_imported_unless_it_is_used():
    program = """
import sys, llmengine
llmengine.wait_for_hint(), llmengine.hinted()
print(sorted({"tenacity", "backoff", "requests", "aiohttp", "pydantic"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done
