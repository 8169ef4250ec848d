"""OpenAI's Python client, unmodified."""

import json
import math

import openai
import pytest

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
CHAT = {"model": "smollm2-135m", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
COMPLETION = {"model": "smollm2-135m", "prompt": "The sky is", "max_tokens": 12, "temperature": 0}


made = []


@pytest.fixture(autouse=True)
def close_clients():
    """Left to be collected, a connection is a warning, at any time and in any test."""
    yield
    while made:
        made.pop().close()


def client(server, key="root", version="v1"):
    made.append(openai.OpenAI(base_url=f"{server.address}/{version}", api_key=key, max_retries=0, timeout=60))
    return made[-1]


def check_usage(usage, limit):
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= limit
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat(server):
    answer = client(server).chat.completions.create(**CHAT)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    check_usage(answer.usage, CHAT["max_tokens"])


def test_chat_as_a_stream(server):
    chunks = list(client(server).chat.completions.create(**CHAT, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] in ("stop", "length")
    assert reasons[:-1] == [None] * (len(chunks) - 1)


def test_chat_as_a_stream_with_usage(server):
    options = {"include_usage": True}
    *chunks, last = client(server).chat.completions.create(**CHAT, stream=True, stream_options=options)
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    check_usage(last.usage, CHAT["max_tokens"])


def test_completions(server):
    answer = client(server).completions.create(**COMPLETION)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason in ("stop", "length")
    check_usage(answer.usage, COMPLETION["max_tokens"])


def test_completions_without_a_maximum_stop_at_openai_s_default(server):
    unbounded = {name: value for name, value in COMPLETION.items() if name != "max_tokens"}
    check_usage(client(server).completions.create(**unbounded).usage, 16)


def test_completions_as_a_stream_with_usage(server):
    options = {"include_usage": True}
    *chunks, last = client(server).completions.create(**COMPLETION, stream=True, stream_options=options)
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert last.choices == []
    check_usage(last.usage, COMPLETION["max_tokens"])


def test_models_are_listed(server):
    assert "smollm2-135m" in [model.id for model in client(server).models.list()]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(server, stream):
    with pytest.raises(openai.NotFoundError) as raised:
        client(server).chat.completions.create(**{**CHAT, "model": "no-such-model"}, stream=stream)
    assert "no-such-model" in raised.value.body["message"]


def test_a_wrong_key_is_an_authentication_error(server):
    with pytest.raises(openai.AuthenticationError):
        client(server, key="not-a-key").chat.completions.create(**CHAT)


def test_a_temperature_out_of_range_is_a_bad_request(server):
    with pytest.raises(openai.BadRequestError) as raised:
        client(server).chat.completions.create(**{**CHAT, "temperature": 3})
    assert "temperature" in raised.value.body["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_says_when_to_come_back(used_up_server, stream):
    with pytest.raises(openai.RateLimitError) as raised:
        client(used_up_server).chat.completions.create(**CHAT, stream=stream)
    headers = raised.value.response.headers
    seconds, milliseconds = int(headers["retry-after"]), int(headers["retry-after-ms"])
    # Behind somebody else who waits so long, it is at most twice as long, and says that it may be less.
    assert 0 < milliseconds <= (3_600_000 if raised.value.body["exact"] else 7_200_000)
    assert seconds == max(1, math.ceil(milliseconds / 1000))
    assert headers["x-should-retry"] == "true"
    assert raised.value.code == "rate_limited"
    assert "one-an-hour" in raised.value.body["message"]


def client_of_v2(server):
    return client(server, version="v2")


def test_v2_answers_whole_and_as_a_stream(server):
    answer = client_of_v2(server).chat.completions.create(**CHAT)
    assert answer.model == CHAT["model"]
    check_usage(answer.usage, CHAT["max_tokens"])
    options = {"include_usage": True}
    *chunks, last = client_of_v2(server).chat.completions.create(**CHAT, stream=True, stream_options=options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    check_usage(last.usage, CHAT["max_tokens"])
    assert client_of_v2(server).completions.create(**COMPLETION).choices[0].text


def test_v2_tells_every_problem_and_openai_s_client_shows_the_error(server):
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client_of_v2(server).chat.completions.create(**{**CHAT, "temperature": 3, "n": 0})
    assert raised.value.param == "temperature"
    problems = raised.value.response.json()["detail"]
    assert [problem["loc"] for problem in problems] == [["body", "temperature"], ["body", "n"]]


def test_a_model_is_described(server):
    assert client(server).models.retrieve("smollm2-135m").id == "smollm2-135m"
    with pytest.raises(openai.NotFoundError):
        client(server).models.retrieve("no-such-model")


def test_log_probabilities_of_a_chat(server):
    with client(server) as caller:
        answer = caller.chat.completions.create(**CHAT, logprobs=True, top_logprobs=4)
        chunks = list(caller.chat.completions.create(**CHAT, logprobs=True, top_logprobs=4, stream=True))
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content
    for entry in content:
        # Greedy: what was taken is the likeliest.
        assert len(entry.top_logprobs) == 4
        assert entry.top_logprobs[0].token == entry.token
        assert bytes(entry.bytes).decode() == entry.token
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-6
    told = [chunk.choices[0].logprobs for chunk in chunks]
    assert [entry for logprobs in told if logprobs for entry in logprobs.content] == content


def test_log_probabilities_of_a_completion(server):
    with client(server) as caller:
        answer = caller.completions.create(**COMPLETION, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.text_offset[0] == 0
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert top[token] == logprob


def test_a_response_format_is_kept(server):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["blue", "green"]}, "sure": {"type": "boolean"}},
        "required": ["colour", "sure"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema, "strict": True}}
    chat = {**CHAT, "temperature": 1, "max_tokens": 60, "n": 3, "response_format": response_format}
    with client(server) as caller:
        answers = caller.chat.completions.create(**chat).choices
    assert [answer.index for answer in answers] == [0, 1, 2]
    for answer in answers:
        value = json.loads(answer.message.content)
        assert value["colour"] in ("blue", "green")
        assert value["sure"] in (True, False)
        assert len(value) == 2


def test_a_guided_choice_is_kept_and_a_bad_pattern_is_refused(server):
    with client(server) as caller:
        chosen = caller.completions.create(**COMPLETION, extra_body={"guided_choice": [" blue", " grey"]})
        assert chosen.choices[0].text in (" blue", " grey")
        with pytest.raises(openai.BadRequestError, match="unclosed group") as raised:
            caller.completions.create(**COMPLETION, extra_body={"guided_regex": "(a"})
    assert raised.value.param == "guided_regex"
