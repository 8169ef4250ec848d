"""OpenAI's Python client, unmodified, in front of a deployment over HTTP: what it can ask for arrives as it was asked, what is
answered comes back as it was answered, and what goes wrong is what its programs expect."""

import asyncio
import hashlib
import itertools
import threading
import time
from contextlib import contextmanager

import openai
import pytest
from server import Server, model_at
from upstream import CHAT as ANSWER
from upstream import CHUNK, VECTORS, Answer, Upstream, chunk

KEYS = ["free", "limited", "spent"]
CALLERS = "".join(
    f'[callers.{key}]\napi_key_sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n' for key in KEYS
)
POLICIES = """
[[policies]]
name = "one-a-second"
match = { caller = "limited" }
requests = { limit = 60, window = "1m", burst = 1 }

[[policies]]
name = "once-a-month"
match = { caller = "spent" }
requests = { limit = 1, window = "calendar-month" }

[[policies]]
name = "plenty"
match = { caller = "free" }
requests = { limit = 100_000, window = "1m" }
tokens = { limit = 100_000_000, window = "1m" }
"""

# A deployment that says 429 isn't asked again for a while; the other tests have one of their own.
COOLING = """
[models.cooling]
deployments = [{{ url = "{url}", model = "upstream", admission = "off" }}]
"""

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALLED = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Kraków"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
# All that is not of our business, and some that is.
EVERYTHING = {
    "model": "llama-7b",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "What is this? ☂"}, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "call-1", "content": "rain"},
    ],
    "max_tokens": 32,
    "temperature": 0.25,
    "top_p": 0.9,
    "n": 2,
    "seed": 7,
    "stop": ["\n\n", "END"],
    "presence_penalty": -0.5,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 5,
    "user": "ann",
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object", "properties": {}}},
    },
    "metadata": {"run": "1"},
    "service_tier": "flex",
    "reasoning_effort": "low",
    "extra_body": {"min_p": 0.05, "nobody_knows": {"this": [1, 2.5, None, True, "ä"], "big": 9007199254740993}},
}
CHAT = {"model": "llama-7b", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def scripted():
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def deployed(scripted, tmp_path_factory):
    model = model_at(scripted.url) + 'aliases = ["org/model"]\n' + COOLING.format(url=scripted.url)
    with Server(tmp_path_factory.mktemp("deployed"), CALLERS + POLICIES, model) as running:
        yield running


@pytest.fixture
def upstream(scripted):
    scripted.forget()
    return scripted


@contextmanager
def client(server, key="free", max_retries=0, statuses=None, timeout=20, version="v1"):
    """A client, which notes the status of each answer in `statuses`."""
    hooks = {"response": [lambda response: statuses.append(response.status_code)]} if statuses is not None else {}
    with openai.OpenAI(
        base_url=f"{server.address}/{version}",
        api_key=key,
        max_retries=max_retries,
        timeout=timeout,
        http_client=openai.DefaultHttpxClient(event_hooks=hooks),
    ) as made:
        yield made


@contextmanager
def direct(upstream):
    """A client that asks the deployment itself, by its own name of the model."""
    with openai.OpenAI(base_url=upstream.url, api_key="free", max_retries=0, timeout=20) as made:
        yield made


def check_arrived_as_sent(upstream):
    """Of two equal requests the deployment got the same bytes, directly and through the server, but for the model's name."""
    sent, arrived = upstream.asked
    assert sent.path == arrived.path
    assert arrived.body == sent.body.replace(b'"model":"llama-7b"', b'"model":"upstream"')


def under_the_public_name(message):
    return {**message.model_dump(), "model": "llama-7b"}


def test_a_chat_and_its_answer_pass_through_untouched(deployed, upstream):
    choice = {
        "index": 0,
        "finish_reason": "tool_calls",
        "logprobs": {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}], "refusal": None},
        "message": {"role": "assistant", "content": None, "tool_calls": [CALLED], "nobody_knows": [1.5]},
    }
    answer = {**ANSWER, "choices": [choice], "system_fingerprint": "f", "service_tier": "flex", "extra": {"é": 1}}
    upstream.answer = lambda _: Answer(answer)
    with direct(upstream) as it, client(deployed) as through:
        expected = it.chat.completions.create(**EVERYTHING)
        received = through.chat.completions.create(**EVERYTHING)
    check_arrived_as_sent(upstream)
    assert received.model_dump() == under_the_public_name(expected)
    assert received.choices[0].message.tool_calls[0].function.arguments == CALLED["function"]["arguments"]
    assert received.extra == {"é": 1}


def test_a_stream_of_a_chat_passes_through_untouched(deployed, upstream):
    called = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"town"'}}
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": []}], "refusal": None}
    events = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "a"}, logprobs=logprobs),
        chunk({"reasoning_content": "hm"}),
        chunk({"tool_calls": [called]}),
        chunk({"tool_calls": [more]}),
        chunk({}, "tool_calls"),
        {**CHUNK, "choices": [], "usage": {**ANSWER["usage"], "prompt_tokens_details": {"cached_tokens": 3}}},
        "[DONE]",
    ]
    upstream.answer = lambda _: Answer(iter(events))
    asked = {**EVERYTHING, "stream": True, "stream_options": {"include_usage": True}}
    with direct(upstream) as it, client(deployed) as through:
        expected = list(it.chat.completions.create(**asked))
        received = list(through.chat.completions.create(**asked))
    check_arrived_as_sent(upstream)
    assert [event.model_dump() for event in received] == [under_the_public_name(event) for event in expected]
    assert received[-1].usage.prompt_tokens_details.cached_tokens == 3


def test_completions_pass_through_untouched(deployed, upstream):
    asked = {"model": "llama-7b", "prompt": "a", "max_tokens": 4, "suffix": "b", "echo": True, "logprobs": 2}
    with direct(upstream) as it, client(deployed) as through:
        expected = it.completions.create(**asked)
        received = through.completions.create(**asked)
        check_arrived_as_sent(upstream)
        assert received.model_dump() == under_the_public_name(expected)
        assert "".join(event.choices[0].text for event in through.completions.create(**asked, stream=True)) == " light"


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
@pytest.mark.parametrize("texts", ["The sky", ["The sky", "is blue"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings_pass_through_untouched(deployed, upstream, form, texts):
    asked = {"model": "llama-7b", "input": texts, "dimensions": 3, "user": "ann", "extra_body": {"task": "query"}}
    with direct(upstream) as it, client(deployed) as through:
        expected = it.embeddings.create(**asked, **form)
        received = through.embeddings.create(**asked, **form)
    check_arrived_as_sent(upstream)
    assert received.model_dump() == under_the_public_name(expected)
    assert received.usage.prompt_tokens == 4
    if form.get("encoding_format") != "base64":
        assert received.data[0].embedding == pytest.approx(VECTORS[0])


def test_embeddings_without_a_text_or_a_model_are_refused(deployed, upstream):
    with client(deployed) as through:
        with pytest.raises(openai.BadRequestError) as raised:
            through.embeddings.create(model="llama-7b", input="")
        assert raised.value.param == "input"
        with pytest.raises(openai.NotFoundError):
            through.embeddings.create(model="no-such-model", input="a")
        upstream.answer = lambda _: Answer({"error": {"message": "no such route"}}, 404)
        with pytest.raises(openai.BadRequestError, match="no embeddings") as raised:
            through.embeddings.create(model="llama-7b", input="a")
        assert raised.value.code == "no_embeddings"


def test_models_are_listed_and_found_by_every_name(deployed, upstream):
    with client(deployed) as through:
        assert [model.id for model in through.models.list()] == ["cooling", "llama-7b", "org/model"]
        for name in ("llama-7b", "org/model"):
            assert through.models.retrieve(name).id == name
        with pytest.raises(openai.NotFoundError) as raised:
            through.models.retrieve("no/such")
        assert raised.value.code == "model_not_found"


def test_the_headers_of_an_answer_can_be_seen(deployed, upstream):
    with client(deployed) as through:
        raw = through.chat.completions.with_raw_response.create(**CHAT)
        assert raw.parse().choices[0].message.content == "Light."
        assert raw.request_id == raw.headers["x-request-id"] == raw.parse()._request_id
        assert raw.headers["x-ratelimit-limit-requests"] == "100000"
        assert int(raw.headers["x-ratelimit-remaining-tokens"]) > 0
        assert raw.headers["ratelimit"] and raw.headers["ratelimit-policy"]
        with through.chat.completions.with_streaming_response.create(**CHAT, stream=True) as streamed:
            assert streamed.headers["content-type"].startswith("text/event-stream")
            assert list(streamed.iter_lines())[-2:] == ["data: [DONE]", ""]


def endless(begun=None):
    """A stream that goes on until the reader has gone."""
    for number in itertools.count():
        if begun is not None and number == 1:
            begun.set()
        yield chunk({"content": f"{number} "})
        time.sleep(0.01)


def test_a_stream_that_is_closed_early_ends_at_the_deployment(deployed, upstream):
    upstream.answer = lambda _: Answer(endless())
    with client(deployed) as through:
        stream = through.chat.completions.create(**CHAT, stream=True)
        assert next(stream).choices[0].delta.content == "0 "
        stream.close()
    assert upstream.next().hung_up.wait(5)


def test_a_cancelled_task_ends_at_the_deployment(deployed, upstream):
    upstream.answer = lambda _: Answer(endless())

    async def cancel_in_mid_stream():
        async with openai.AsyncOpenAI(base_url=f"{deployed.address}/v1", api_key="free", max_retries=0) as through:
            got_some = asyncio.Event()

            async def read():
                async for event in await through.chat.completions.create(**CHAT, stream=True):
                    assert event.choices[0].delta.content
                    got_some.set()

            task = asyncio.create_task(read())
            await asyncio.wait_for(got_some.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel_in_mid_stream())
    assert upstream.next().hung_up.wait(5)


def test_async_calls_are_answered(deployed, upstream):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{deployed.address}/v1", api_key="free", max_retries=0) as through:
            calls = [through.chat.completions.create(**CHAT) for _ in range(20)]
            answers = await asyncio.gather(*calls, through.embeddings.create(model="llama-7b", input="a"))
            stream = await through.chat.completions.create(**CHAT, stream=True)
            return answers, [event async for event in stream]

    answers, events = asyncio.run(ask())
    assert [answer.choices[0].message.content for answer in answers[:-1]] == ["Light."] * 20
    assert answers[-1].data[0].embedding == pytest.approx(VECTORS[0])
    assert events[0].choices[0].delta.content == "Light."
    # Nobody asked for the usage.
    assert all(event.choices and event.usage is None for event in events)


def test_a_client_that_waits_no_longer_is_missed_by_nobody(deployed, upstream):
    release = threading.Event()

    def silent():
        release.wait(20)
        yield from endless()

    upstream.answer = lambda _: Answer(silent())
    with client(deployed, timeout=0.3) as through:
        begun = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            through.chat.completions.create(**CHAT, stream=True)
        assert time.monotonic() - begun < 3
    release.set()
    assert upstream.next().hung_up.wait(5)


def test_an_error_in_mid_stream_is_raised(deployed, upstream):
    events = [chunk({"content": "a"}), {"error": {"message": "out of memory", "type": "server_error"}}]
    upstream.answer = lambda _: Answer(iter(events))
    with client(deployed) as through:
        stream = through.chat.completions.create(**CHAT, stream=True)
        assert next(stream).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError, match="out of memory"):
            list(stream)


@pytest.mark.parametrize(
    ("key", "asked", "kind", "code"),
    [
        ("free", {"temperature": 3}, openai.BadRequestError, "invalid_request"),
        ("free", {"messages": []}, openai.BadRequestError, "invalid_request"),
        ("free", {"model": "no-such-model"}, openai.NotFoundError, "model_not_found"),
        ("nobody", {}, openai.AuthenticationError, "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_caller_s_mistakes_are_not_retried(deployed, upstream, key, asked, kind, code, stream):
    statuses = []
    with client(deployed, key, 2, statuses) as through, pytest.raises(kind) as raised:
        through.chat.completions.create(**{**CHAT, **asked}, stream=stream)
    assert raised.value.code == code
    assert raised.value.request_id
    assert len(statuses) == 1
    assert not upstream.asked


def test_what_can_t_be_processed_is_told_apart(deployed, upstream):
    statuses = []
    with client(deployed, max_retries=2, statuses=statuses) as through:
        key = {"Idempotency-Key": "judge-1"}
        first = through.chat.completions.with_raw_response.create(**CHAT, extra_headers=key)
        again = through.chat.completions.with_raw_response.create(**CHAT, extra_headers=key)
        assert again.headers["x-llm-engine-replayed"] == "true"
        assert again.parse() == first.parse()
        with pytest.raises(openai.UnprocessableEntityError) as raised:
            through.chat.completions.create(**CHAT, seed=1, extra_headers=key)
    assert raised.value.code == "idempotency_key_reused"
    assert statuses == [200, 200, 422]
    assert len(upstream.asked) == 1
    statuses.clear()
    with client(deployed, max_retries=2, statuses=statuses, version="v2") as through:
        with pytest.raises(openai.UnprocessableEntityError) as raised:
            through.chat.completions.create(**{**CHAT, "temperature": 3, "n": 0})
    assert raised.value.param == "temperature"
    assert statuses == [422]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_retried_when_it_says(deployed, upstream, stream):
    statuses = []
    with client(deployed, "limited", 2, statuses) as through:
        begun = time.monotonic()
        for number in range(3):
            answer = through.chat.completions.create(**{**CHAT, "seed": number}, stream=stream)
            if stream:
                list(answer)
        seconds = time.monotonic() - begun
    # Whoever comes when it is told to is admitted at the first try; the first may meet what the test before left.
    assert statuses[-4:] == [429, 200, 429, 200], statuses
    assert 1.9 < seconds < 6


def test_a_spent_budget_is_not_retried(deployed, upstream):
    statuses = []
    with client(deployed, "spent", 2, statuses) as through:
        assert through.chat.completions.create(**CHAT).choices
        with pytest.raises(openai.RateLimitError) as raised:
            through.chat.completions.create(**CHAT)
    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert statuses == [200, 429]
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_limit_of_the_deployment_is_passed_on(deployed, upstream):
    upstream.answer = lambda _: Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "7"})
    with client(deployed) as through, pytest.raises(openai.RateLimitError) as raised:
        through.chat.completions.create(**{**CHAT, "model": "cooling"})
    assert raised.value.code == "upstream_limited"
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 7


def test_a_failure_of_the_deployment_is_retried(deployed, upstream):
    statuses = []
    upstream.answer = lambda _: Answer({"error": {"message": "out of memory"}}, 500)
    with client(deployed, max_retries=1, statuses=statuses) as through:
        with pytest.raises(openai.InternalServerError) as raised:
            through.chat.completions.create(**CHAT)
    assert raised.value.code == "upstream_failed"
    assert statuses == [502, 502]


def test_a_mistake_that_only_the_deployment_sees_is_the_caller_s(deployed, upstream):
    error = {"message": "too long", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
    upstream.answer = lambda _: Answer({"error": error}, 400)
    with client(deployed, max_retries=2) as through, pytest.raises(openai.BadRequestError) as raised:
        through.chat.completions.create(**CHAT)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")
    assert len(upstream.asked) == 1
