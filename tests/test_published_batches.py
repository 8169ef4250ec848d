"""The Python client that LLM Engine publishes, unmodified: files and batches."""

import io
import json

import pytest
from storing import Storing, until

MODEL = "llama-7b"


@pytest.fixture(scope="module")
def storing(tmp_path_factory):
    with Storing(tmp_path_factory.mktemp("storing")) as running:
        yield running


@pytest.fixture
def llmengine(storing, published_client):
    return published_client(storing.server.address, key="alice")


def content(llmengine, *prompts):
    made = llmengine.data_types.CreateBatchCompletionsV1RequestContent
    return made(prompts=list(prompts), max_new_tokens=8, temperature=0)


def create(llmengine, output="answers.json", **more):
    config = llmengine.data_types.CreateBatchCompletionsModelConfig(model=MODEL, labels={"team": "x"})
    return llmengine.Completion.batch_create(output_data_path=output, model_config=config, **more)


def ended(llmengine, job_id):
    ask = llmengine.Completion.get_batch_completion
    return until(lambda: ask(job_id)["job"], lambda job: job["status"] not in ("queued", "running"))


def output_of(llmengine, job):
    return json.loads(llmengine.File.download(job["metadata"]["output_file_id"]).content)


def texts_of(llmengine, job):
    assert job["status"] == "completed", job
    outputs = [llmengine.data_types.CompletionOutput.parse_obj(output) for output in output_of(llmengine, job)]
    return [output.text for output in outputs]


def test_files(llmengine, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("prompt,response\n\"a\n€\",b\n" * 50_000)
    with path.open() as file:
        made = llmengine.File.upload(file)
    found = llmengine.File.get(made.id)
    assert (found.id, found.filename, found.size) == (made.id, "data.csv", path.stat().st_size)
    assert made.id in [file.id for file in llmengine.File.list().files]
    assert llmengine.File.download(made.id).content == path.read_text()
    assert llmengine.File.delete(made.id).deleted is True
    for ask in (llmengine.File.get, llmengine.File.download, llmengine.File.delete):
        with pytest.raises(llmengine.errors.NotFoundError, match="could not be found"):
            ask(made.id)


def test_prompts_in_the_request(llmengine):
    job_id = create(llmengine, content=content(llmengine, "p1", "p2")).job_id
    job = ended(llmengine, job_id)
    assert texts_of(llmengine, job) == ["to p1", "to p2"]
    assert (job["output_data_path"], job["metadata"]["completed"]) == ("answers.json", "2")
    output = llmengine.File.get(job["metadata"]["output_file_id"])
    assert output.filename == "answers.json"


@pytest.mark.parametrize("use_v2", [False, True])
def test_prompts_in_a_file(llmengine, use_v2):
    rows = json.dumps({"prompts": ["p1", "p2"], "max_new_tokens": 8, "temperature": 0})
    file = llmengine.File.upload(io.BytesIO(rows.encode()))
    job = ended(llmengine, create(llmengine, input_data_path=file.id, use_v2=use_v2).job_id)
    assert texts_of(llmengine, job) == ["to p1", "to p2"]


def test_chats_by_version_2(llmengine):
    asked = llmengine.data_types.FilteredChatCompletionV2Request
    chats = [asked(messages=[{"role": "user", "content": f"p{number}"}], max_tokens=8) for number in range(3)]
    made = create(llmengine, content=chats, use_v2=True, labels={"team": "y"}, priority="high")
    assert (made.model_config.model, made.priority, made.completed_at) == (MODEL, "high", None)
    assert made.created_at < made.expires_at
    job = ended(llmengine, made.job_id)
    assert job["metadata"]["team"] == "y"
    texts = [answer["choices"][0]["message"]["content"] for answer in output_of(llmengine, job)]
    assert texts == ["to p0", "to p1", "to p2"]


def test_a_batch_that_is_cancelled(llmengine):
    job_id = create(llmengine, content=content(llmengine, *["p"] * 2000)).job_id
    assert llmengine.Completion.cancel_batch_completion(job_id) == {"success": True}
    job = ended(llmengine, job_id)
    assert job["status"] == "cancelled"
    assert llmengine.Completion.cancel_batch_completion(job_id) == {"success": False}


def test_what_is_another_s_is_not_there(storing, llmengine, published_client):
    made = create(llmengine, content=content(llmengine, "p1"))
    file = llmengine.File.upload(io.BytesIO(b"x"))
    other = published_client(storing.server.address, key="bob")
    for ask in (other.Completion.get_batch_completion, other.Completion.cancel_batch_completion):
        with pytest.raises(other.errors.NotFoundError):
            ask(made.job_id)
    with pytest.raises(other.errors.NotFoundError):
        other.File.get(file.id)
    assert other.File.list().files == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"input_data_path": "s3://bucket/rows.json"}, "no file of yours; upload the rows"),
        ({"output": "s3://bucket/answers.json", "input_data_path": "f"}, "writes to no other storage"),
    ],
)
def test_what_needs_another_storage_says_what_to_do(llmengine, more, said):
    with pytest.raises(llmengine.errors.BadRequestError, match=said):
        create(llmengine, **more)


def test_an_unknown_model_is_not_found(llmengine):
    config = llmengine.data_types.CreateBatchCompletionsModelConfig(model="no-such-model", labels={})
    with pytest.raises(llmengine.errors.NotFoundError):
        llmengine.Completion.batch_create(
            output_data_path="o", model_config=config, content=content(llmengine, "p")
        )
