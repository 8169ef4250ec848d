"""Calls, whole and in pieces, blocking and in an event loop: what is sent, what comes back, what is raised."""

import asyncio
import base64
import copy
import io
import json
import pickle

import pytest
from scripted import COMPLETION, Answer, Asked, piece, refusal

QUESTION = {"model": "llama-7b", "prompt": "Why is the sky blue?", "max_new_tokens": 10, "temperature": 0.2}
STREAM = [piece(" be", tokens=1), piece(" cause", tokens=2), piece("", finished=True, tokens=2)]


def acreate(llmengine, **settings):
    return asyncio.run(llmengine.Completion.acreate(**{**QUESTION, **settings}))


def test_what_is_sent_is_what_the_published_client_sends(client, scripted):
    server = scripted(Answer())
    client(server.address).Completion.create(**QUESTION, request_headers={"x-tag": "7"})
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/llm/completions-sync?model_endpoint_name=llama-7b")
    assert asked.headers["authorization"] == "bearer root"
    assert asked.headers["x-tag"] == "7"
    assert asked.headers["idempotency-key"]
    assert asked.json() == {
        "prompt": "Why is the sky blue?",
        "max_new_tokens": 10,
        "temperature": 0.2,
        "stop_sequences": None,
        "return_token_log_probs": False,
        "presence_penalty": None,
        "frequency_penalty": None,
        "top_k": None,
        "top_p": None,
        "include_stop_str_in_output": None,
        "guided_json": None,
        "guided_regex": None,
        "guided_choice": None,
        "guided_grammar": None,
        "skip_special_tokens": True,
    }


def test_key_and_address_are_set_as_with_the_published_client(client, scripted, monkeypatch):
    server = scripted(Answer())
    llmengine = client("http://127.0.0.1:1")
    engine = llmengine.api_engine
    monkeypatch.setattr(engine, "base_path", None)
    monkeypatch.setattr(engine, "api_key", None)
    assert engine.get_api_key() == "root"
    monkeypatch.setenv("SCALE_API_KEY", "Mine")
    assert engine.get_api_key() == "Mine"
    engine.set_api_key("Other")
    engine.set_base_path(f"{server.address}/under/")
    assert engine.get_base_path() == f"{server.address}/under/"
    llmengine.Completion.create(**QUESTION)
    assert server.asked[0].path.startswith("/under/v1/llm/completions-sync?")
    assert server.asked[0].headers["authorization"] == "bearer other"
    monkeypatch.delenv("LLM_ENGINE_BASE_PATH")
    engine.set_base_path(None)
    assert engine.get_base_path() == "http://127.0.0.1:5000"


def test_answers_are_records(client, scripted):
    llmengine = client(scripted(Answer()).address)
    response = llmengine.Completion.create(**QUESTION)
    assert response.output.text == " light"
    assert response.dict() == response.model_dump() == COMPLETION
    assert json.loads(response.json()) == json.loads(response.model_dump_json()) == COMPLETION
    assert response == acreate(llmengine) == COMPLETION
    assert repr(response).startswith("CompletionSyncV1Response(request_id='r-1', output=CompletionOutput(text=")
    assert copy.deepcopy(response) == pickle.loads(pickle.dumps(response)) == response
    assert isinstance(response, llmengine.CompletionSyncResponse)
    assert response.dict(exclude_none=True)["output"].keys() == {"text", "num_prompt_tokens", "num_completion_tokens"}


def test_streams(client, scripted):
    server = scripted(Answer(events=STREAM))
    llmengine = client(server.address)

    async def collect():
        return [frame async for frame in await llmengine.Completion.acreate(**QUESTION, stream=True)]

    stream = llmengine.Completion.create(**QUESTION, stream=True)
    for frames in [list(stream), asyncio.run(collect())]:
        assert [frame.output.text for frame in frames] == [" be", " cause", ""]
        assert [frame.output.finished for frame in frames] == [False, False, True]
        assert all(frame.error is None for frame in frames)
    assert server.asked[0].path.startswith("/v1/llm/completions-stream?")
    assert next(stream, None) is None
    assert not server.cancels


def test_a_stream_that_breaks_off_says_so(client, scripted):
    llmengine = client(scripted(Answer(events=[STREAM[0], None])).address)
    stream = llmengine.Completion.create(**QUESTION, stream=True)
    assert next(stream).output.text == " be"
    with pytest.raises(llmengine.errors.StreamInterruptedError, match="broke off after 1 event"):
        next(stream)
    assert next(stream, None) is None


def test_a_stream_that_is_closed_early_is_cancelled(client, scripted):
    server = scripted(Answer(events=[STREAM[0], 30, STREAM[2]]))
    llmengine = client(server.address)

    async def begin():
        async with await llmengine.Completion.acreate(**QUESTION, stream=True) as stream:
            async for _ in stream:
                break

    with llmengine.Completion.create(**QUESTION, stream=True) as stream:
        next(stream)
    asyncio.run(begin())
    llmengine._native.flush(5)
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    # A key of the client's own making belongs to this call alone, so the cancel may come before the call.
    cancelled = [cancel.path.rpartition("/")[2] for cancel in server.cancels]
    assert cancelled == [f"{key}?ahead_seconds=5" for key in keys]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "UnauthorizedError"),
        (402, "BudgetExhaustedError"),
        (402, "UnknownError"),
        (404, "NotFoundError"),
        (422, "UnknownError"),
        (501, "ServerError"),
    ],
)
def test_what_would_fail_again_is_raised_at_once(client, scripted, status, name):
    server = scripted(Answer(status, {"detail": "It is so."}, {"x-request-id": "r-9"}))
    llmengine = client(server.address)
    with pytest.raises(getattr(llmengine.errors, name), match="It is so") as raised:
        llmengine.Completion.create(**QUESTION)
    error = raised.value
    assert isinstance(error, llmengine.errors.LLMEngineError)
    assert (error.status_code, error.request_id, error.is_transient) == (status, "r-9", False)
    assert [attempt.number for attempt in error.attempts] == [1]
    # As the published client says it, to the letter.
    assert str(error) == str(llmengine.errors.parse_error(status, b'{"detail": "It is so."}'))
    with pytest.raises(type(error)):
        acreate(llmengine)
    with pytest.raises(type(error)):
        llmengine.Completion.create(**QUESTION, stream=True)
    assert len(server.asked) == 3


def test_errors_are_made_as_the_published_ones():
    from llmengine import errors

    for name in ["BadRequestError", "UnauthorizedError", "NotFoundError", "RateLimitExceededError", "UnknownError"]:
        error = getattr(errors, name)("why")
        assert str(error) == "why"
        assert error.retry_after is None
    assert str(errors.ServerError(503, "why")) == "Server exception with status_code=503, message='why'"
    assert str(errors.ValidationError("why")) == "why"
    assert isinstance(errors.parse_error(429, b'{"detail": "why"}'), errors.RateLimitExceededError)
    assert str(errors.parse_error(418, b"tea")) == "tea"


def test_it_is_tried_again_until_it_succeeds(client, scripted):
    answers = iter([refusal(0.05), Answer(503, {"detail": "soon"}, {"retry-after-ms": "50"}), Answer()])
    server = scripted(lambda asked: next(answers))
    assert client(server.address).Completion.create(**QUESTION).output.text == " light"
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
    assert [asked.headers["x-llm-engine-attempt"] for asked in server.asked] == ["1", "2", "3"]


def test_an_error_tells_all_that_was_tried(client, scripted):
    llmengine = client(scripted(lambda asked: refusal(0.03, booked=True)).address)
    with pytest.raises(llmengine.errors.RateLimitExceededError, match="Policy per-key says no") as raised:
        llmengine.Completion.create(**QUESTION, max_retries=2)
    error = pickle.loads(pickle.dumps(raised.value))
    for error in [raised.value, error]:
        assert (error.status_code, error.code, error.policy) == (429, "rate_limited", "per-key")
        assert (error.retry_after, error.is_booked, error.is_transient) == (0.03, True, True)
        assert [attempt.number for attempt in error.attempts] == [1, 2, 3]
        assert error.attempts[2].waited == pytest.approx(0.03, abs=0.03)
        assert "429" in error.attempts[0].failure
        assert error.gave_up == "no attempts are left"
        assert str(error).endswith(" (gave up after 3 attempts: no attempts are left)")


def test_retries_can_be_switched_off_for_one_call_or_all(client, scripted, monkeypatch):
    server = scripted(lambda asked: refusal(0.01))
    llmengine = client(server.address)
    with pytest.raises(llmengine.errors.RateLimitExceededError):
        llmengine.Completion.create(**QUESTION, max_retries=0)
    monkeypatch.setattr(llmengine.defaults, "max_retries", 0)
    with pytest.raises(llmengine.errors.RateLimitExceededError):
        acreate(llmengine)
    assert len(server.asked) == 2


@pytest.mark.parametrize("way", ["create", "acreate"])
def test_the_timeout_is_for_the_call_in_all(client, scripted, way):
    llmengine = client(scripted(Answer(delay=10)).address)
    call = llmengine.Completion.create if way == "create" else lambda **settings: acreate(llmengine, **settings)
    with pytest.raises(llmengine.errors.DeadlineExceededError) as raised:
        call(**QUESTION, timeout=0.2)
    assert isinstance(raised.value, TimeoutError)


def test_who_would_wait_for_longer_than_it_may_is_told_so_at_once(client, scripted):
    """The first refusal holds all calls for an hour; the next ones are not left standing until their time is over."""
    server = scripted(lambda asked: refusal(3600))
    llmengine = client(server.address)
    for stream in [False, True, False]:
        with pytest.raises(llmengine.errors.RateLimitExceededError) as raised:
            llmengine.Completion.create(**QUESTION, stream=stream, timeout=20)
        assert raised.value.retry_after == 3600
    assert len(server.asked) == 3


def test_nobody_there_is_a_connection_error(client):
    llmengine = client("http://127.0.0.1:1")
    with pytest.raises(llmengine.errors.APIConnectionError, match="can't connect") as raised:
        llmengine.Completion.create(**QUESTION, max_retries=0)
    assert isinstance(raised.value, OSError)


def test_an_address_that_is_none_is_a_value_error(client):
    with pytest.raises(ValueError, match="is no base URL"):
        client("127.0.0.1:5000").Completion.create(**QUESTION)


def test_a_request_that_can_t_be_right_is_not_sent(client, scripted):
    server = scripted(Answer())
    llmengine = client(server.address)
    for wrong in [{"temperature": 2}, {"prompt": None}, {"guided_json": "no"}, {"top_p": 0}]:
        with pytest.raises(llmengine.errors.ValidationError, match=next(iter(wrong))):
            llmengine.Completion.create(**{**QUESTION, **wrong})
    assert not server.asked
    llmengine.Completion.create(**{**QUESTION, "temperature": "0.5", "max_new_tokens": "7"})
    assert server.asked[0].json()["temperature"] == 0.5
    assert server.asked[0].json()["max_new_tokens"] == 7


def test_files_go_as_a_form(client, scripted):
    server = scripted(Answer(body={"id": "file-1"}))
    llmengine = client(server.address)
    file = io.BytesIO(b"one,two")
    file.name = "/somewhere/data.csv"
    assert llmengine.File.upload(file).id == "file-1"
    (asked,) = server.asked
    assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="data.csv"' in asked.body
    assert b"one,two" in asked.body


def test_every_route_of_the_published_client_is_there(client, scripted):
    bodies = {
        "GET /v1/files/f": {"id": "f", "filename": "n", "size": 3},
        "GET /v1/files": {"files": [{"id": "f", "filename": "n", "size": 3}]},
        "DELETE /v1/files/f": {"deleted": True},
        "GET /v1/files/f/content": {"id": "f", "content": "abc"},
        "POST /v1/llm/fine-tunes": {"id": "t"},
        "GET /v1/llm/fine-tunes/t": {"id": "t", "status": "RUNNING"},
        "GET /v1/llm/fine-tunes": {"jobs": [{"id": "t", "status": "RUNNING", "fine_tuned_model": None}]},
        "PUT /v1/llm/fine-tunes/t/cancel": {"success": True},
        "GET /v1/llm/fine-tunes/t/events": {"events": [{"message": "m", "level": "info"}]},
        "POST /v1/llm/model-endpoints": {"endpoint_creation_task_id": "e"},
        "PUT /v1/llm/model-endpoints/n": {"endpoint_creation_task_id": "e"},
        "DELETE /v1/llm/model-endpoints/n": {"deleted": True},
        "POST /v1/llm/model-endpoints/download": {"urls": {"a": "b"}},
        "POST /v1/llm/batch-completions": {"job_id": "j"},
        "GET /v2/batch-completions/j": {"job": {}},
        "POST /v2/batch-completions/j/actions/cancel": {"success": True},
    }
    asked_for = []

    def answer(asked: Asked):
        asked_for.append(f"{asked.method} {asked.path}")
        return Answer(body=bodies[asked_for[-1]])

    llmengine = client(scripted(answer).address)
    File, FineTune, Model, Completion = llmengine.File, llmengine.FineTune, llmengine.Model, llmengine.Completion
    assert File.get("f").size == 3
    assert File.list().files[0].id == "f"
    assert File.delete("f").deleted
    assert File.download("f").content == "abc"
    assert FineTune.create("m", "f", hyperparameters={"lr": 0.1}).id == "t"
    assert FineTune.get("t").status == "RUNNING"
    assert FineTune.list().jobs[0].fine_tuned_model is None
    assert FineTune.cancel("t").success
    assert FineTune.get_events("t").events[0].level == "info"
    assert Model.create("n", "m", "latest", gpu_type="nvidia-ampere-a10").endpoint_creation_task_id == "e"
    assert Model.update("n", max_workers=2).endpoint_creation_task_id == "e"
    assert Model.delete("n").deleted
    assert Model.download("n").urls == {"a": "b"}
    config = llmengine.CreateBatchCompletionsModelConfig(model="m", checkpoint_path="s3://c", labels={"team": "t"})
    content = llmengine.CreateBatchCompletionsRequestContent(prompts=["a"], max_new_tokens=1, temperature=0)
    assert Completion.batch_create("s3://o", config, content).job_id == "j"
    assert Completion.get_batch_completion("j") == {"job": {}}
    assert Completion.cancel_batch_completion("j") == {"success": True}
    assert sorted(asked_for) == sorted(bodies)


def test_a_batch_of_version_2_is_asked_for_as_documented(client, scripted):
    job = {
        "job_id": "j",
        "output_data_path": "o",
        "model_config": {"model": "m"},
        "status": "queued",
        "created_at": "1",
        "expires_at": "2",
        "completed_at": None,
        "metadata": {},
    }
    server = scripted(Answer(body=job))
    llmengine = client(server.address)
    from llmengine.data_types import CreateBatchCompletionsModelConfig, FilteredChatCompletionV2Request

    chat = FilteredChatCompletionV2Request(messages=[{"role": "user", "content": "Where to?"}], logprobs=True)
    made = llmengine.Completion.batch_create(
        output_data_path="testoutput",
        model_config=CreateBatchCompletionsModelConfig(model="m", checkpoint_path="c"),
        content=[chat],
        use_v2=True,
        labels={"team": "my-team"},
    )
    assert made.status == llmengine.BatchCompletionsJobStatus.Queued
    sent = server.asked[0].json()
    assert sent["labels"] == {"team": "my-team"}
    assert sent["content"][0]["messages"] == [{"role": "user", "content": "Where to?"}]
    assert sent["content"][0]["logprobs"] is True


def test_what_cannot_be_created_is_the_server_s_error(client, scripted):
    detail = "Creating endpoints needs a GPU cluster; this server serves the models in its configuration."
    llmengine = client(scripted(Answer(501, {"detail": detail})).address)
    with pytest.raises(llmengine.errors.ServerError, match="needs a GPU cluster") as raised:
        llmengine.Model.create("n", "m", "latest")
    assert raised.value.status_code == 501
    assert len(raised.value.attempts) == 1


def test_all_names_of_the_published_package_are_there():
    import llmengine

    published = """
    BatchCompletionsJob CreateBatchCompletionsV2Response FilteredCompletionV2Request FilteredChatCompletionV2Request
    BatchCompletionsJobStatus CompletionSyncV1Request CompletionSyncV1Response CompletionStreamV1Request
    CompletionStreamV1Response CancelFineTuneResponse ChatCompletionV2Request ChatCompletionV2Response
    VLLMEndpointAdditionalArgs Completion CompletionOutput CompletionStreamOutput CompletionStreamResponse
    CompletionSyncResponse CreateBatchCompletionsModelConfig CreateBatchCompletionsRequest
    CreateBatchCompletionsRequestContent CreateBatchCompletionsResponse CreateBatchCompletionsV1Request
    CreateBatchCompletionsV1RequestContent CreateBatchCompletionsV1Response CreateBatchCompletionsV2Request
    CreateBatchCompletionsV2RequestContent CreateBatchCompletionsV2ModelConfig BatchCompletionsModelConfig
    CreateFineTuneRequest CreateFineTuneResponse DeleteFileResponse DeleteLLMEndpointResponse ModelDownloadRequest
    ModelDownloadResponse GetFileContentResponse File FineTune GetFileResponse GetFineTuneResponse
    GetLLMEndpointResponse ListFilesResponse ListFineTunesResponse ListLLMEndpointsResponse Model UploadFileResponse
    """.split()
    assert set(published) <= set(llmengine.__all__)
    assert all(hasattr(llmengine, name) for name in llmengine.__all__)
    assert all(getattr(llmengine, name).__doc__ for name in llmengine.__all__ if not name.startswith(("__", "CreateBatchCompletionsV2Req")))


def test_the_key_is_not_in_what_is_printed(client):
    assert base64.b64encode(b"root:").decode() not in repr(client("http://127.0.0.1:1").defaults)
