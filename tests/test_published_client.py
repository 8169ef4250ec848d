"""The Python client that LLM Engine publishes, unmodified."""

import asyncio

import pytest
from server import Server, model_at
from upstream import Answer, Upstream, answered

QUESTION = {"model": "llama-7b", "prompt": "Why is the sky blue?", "max_new_tokens": 24, "temperature": 0}


def check_answer(response):
    assert response.request_id
    assert response.output.text
    assert response.output.num_prompt_tokens > 0
    assert 0 < response.output.num_completion_tokens <= QUESTION["max_new_tokens"]


def check_stream(frames):
    assert len(frames) > 1
    assert len({frame.request_id for frame in frames}) == 1
    assert all(frame.error is None for frame in frames)
    assert [frame.output.finished for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert all(frame.output.num_prompt_tokens is None for frame in frames[:-1])
    assert frames[-1].output.num_prompt_tokens > 0
    counts = [frame.output.num_completion_tokens for frame in frames]
    assert counts == sorted(counts)
    assert 0 < counts[-1] <= QUESTION["max_new_tokens"]
    assert "".join(frame.output.text for frame in frames)


def test_create(server, published_client):
    check_answer(published_client(server.address).Completion.create(**QUESTION))


def test_create_as_a_stream(server, published_client):
    check_stream(list(published_client(server.address).Completion.create(**QUESTION, stream=True)))


def test_acreate(server, published_client):
    llmengine = published_client(server.address)
    check_answer(asyncio.run(llmengine.Completion.acreate(**QUESTION)))


def test_acreate_as_a_stream(server, published_client):
    llmengine = published_client(server.address)

    async def collect():
        return [frame async for frame in await llmengine.Completion.acreate(**QUESTION, stream=True)]

    check_stream(asyncio.run(collect()))


def test_a_stop_sequence_ends_the_text(server, published_client):
    llmengine = published_client(server.address)
    whole = llmengine.Completion.create(**QUESTION).output.text
    stop = whole.split()[2]
    response = llmengine.Completion.create(**QUESTION, stop_sequences=[stop])
    assert stop not in response.output.text


def test_models_are_listed(server, published_client):
    models = published_client(server.address).Model.list().model_endpoints
    assert "smollm2-135m" in [model.name for model in models]


@pytest.mark.parametrize("name", ["smollm2-135m", "llama-7b", "org/llama-7b"])
def test_a_model_is_described(server, published_client, name):
    model = published_client(server.address).Model.get(name)
    assert (model.name, model.status) == (name, "READY")


def test_an_unknown_model_is_not_found(server, published_client):
    llmengine = published_client(server.address)
    unknown = {**QUESTION, "model": "no-such-model"}
    with pytest.raises(llmengine.errors.NotFoundError):
        llmengine.Completion.create(**unknown)
    with pytest.raises(llmengine.errors.NotFoundError):
        list(llmengine.Completion.create(**unknown, stream=True))
    with pytest.raises(llmengine.errors.NotFoundError):
        llmengine.Model.get("no-such-model")


def test_a_wrong_key_is_unauthorized(server, published_client):
    llmengine = published_client(server.address, key="not-a-key")
    with pytest.raises(llmengine.errors.UnauthorizedError, match="Could not authenticate user"):
        llmengine.Completion.create(**QUESTION)


def test_no_output_at_all_is_a_bad_request(server, published_client):
    llmengine = published_client(server.address)
    with pytest.raises(llmengine.errors.BadRequestError):
        llmengine.Completion.create(**{**QUESTION, "max_new_tokens": 0})


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_names_the_policy(used_up_server, published_client, stream):
    llmengine = published_client(used_up_server.address)
    with pytest.raises(llmengine.errors.RateLimitExceededError, match="one-an-hour"):
        response = llmengine.Completion.create(**QUESTION, stream=stream)
        if stream:
            list(response)


def test_a_refusal_names_the_policy_to_an_async_caller(used_up_server, published_client):
    llmengine = published_client(used_up_server.address)
    with pytest.raises(llmengine.errors.RateLimitExceededError, match="one-an-hour"):
        asyncio.run(llmengine.Completion.acreate(**QUESTION))


def test_there_are_no_fine_tunes(server, published_client):
    llmengine = published_client(server.address)
    assert llmengine.FineTune.list().jobs == []
    for ask in (llmengine.FineTune.get, llmengine.FineTune.get_events, llmengine.FineTune.cancel):
        with pytest.raises(llmengine.errors.NotFoundError):
            ask("ft-none")


@pytest.mark.parametrize(
    "ask",
    [
        lambda it: it.Model.create("m", "llama-2-7b", inference_framework_image_tag="0.2.1"),
        lambda it: it.Model.update("smollm2-135m", max_workers=2),
        lambda it: it.Model.delete("smollm2-135m"),
        lambda it: it.Model.delete("org/llama-7b"),
        lambda it: it.Model.download("smollm2-135m"),
        lambda it: it.FineTune.create(model="smollm2-135m", training_file="file-none"),
    ],
)
def test_what_needs_a_gpu_cluster_says_so(server, published_client, ask):
    llmengine = published_client(server.address)
    with pytest.raises(llmengine.errors.ServerError, match="needs a GPU cluster") as raised:
        ask(llmengine)
    assert "status_code=501" in str(raised.value)


@pytest.fixture(scope="module")
def failing_server(tmp_path_factory):
    """A server whose models fail with the status that their upstream is asked for by the prompt, and a budget that is spent."""

    def fail(asked):
        status = int(asked.json["prompt"]) if asked.body else 200
        return answered(asked) if status == 200 else Answer({"error": {"message": "broken"}}, status)

    with Upstream() as upstream:
        upstream.answer = fail
        with Server(tmp_path_factory.mktemp("failing"), ONE_LONG_ANSWER, model_at(upstream.url)) as running:
            yield running


# Short answers are not limited.
ONE_LONG_ANSWER = """
[[policies]]
name = "budget"
output_tokens = { limit = 1000, window = "calendar-month" }
"""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_failure_behind_the_server_is_a_server_error(
    failing_server, published_client, monkeypatch, status, stream
):
    llmengine = published_client(failing_server.address)
    if hasattr(llmengine, "defaults"):
        # Our package would try again; the published client has nothing to set.
        monkeypatch.setattr(llmengine.defaults, "max_retries", 0)
    with pytest.raises(llmengine.errors.ServerError):
        answer = llmengine.Completion.create(**{**QUESTION, "prompt": str(status)}, stream=stream)
        if stream:
            list(answer)


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"max_new_tokens": 1001}, "BadRequestError", "budget"),
        ({"temperature": 0, "top_k": 5}, "BadRequestError", "top_k and top_p can't be enabled"),
        ({"temperature": 0.5, "top_k": 0}, "BadRequestError", "top_k needs to be strictly positive"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "BadRequestError", "Only one of guided_json"),
    ],
)
def test_mistakes_are_named_in_the_server_s_words(failing_server, published_client, asked, kind, said):
    llmengine = published_client(failing_server.address)
    with pytest.raises(getattr(llmengine.errors, kind), match=said) as raised:
        llmengine.Completion.create(**{**QUESTION, "prompt": "200", **asked})
    # To the letter: its sentences end with a full stop.
    assert str(raised.value).endswith(".")
