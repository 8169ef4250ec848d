"""`llmengine.Batch`: one row for each row. What the runner does otherwise is tested where it is."""

import json

import pytest
from conftest import start_program
from scripted import Answer, refusal


def rows(count):
    return "".join(json.dumps({"id": f"r{number}", "prompt": f"p{number}"}) + "\n" for number in range(count))


def echo(asked):
    prompt = asked.json()["prompt"]
    output = {"text": f"to {prompt}", "num_prompt_tokens": 2, "num_completion_tokens": 3, "tokens": None}
    return Answer(body={"request_id": "r", "output": output})


@pytest.fixture
def batch(client, tmp_path):
    """Returns a batch of the rows of `prompts.jsonl`, for the server at an address."""

    def make(address, count=20, **settings):
        (tmp_path / "prompts.jsonl").write_text(rows(count))
        llmengine = client(address)
        return llmengine.Batch(
            tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl", model="m", ordered=True, **settings
        )

    return make


def answers(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_every_row_is_answered_in_order(scripted, batch, tmp_path):
    refused = []

    def answer(asked):
        if len(refused) < 3:
            refused.append(asked)
            return refusal(0.05)
        return echo(asked)

    seen = []
    result = batch(scripted(answer).address).run(on_progress=lambda progress: seen.append(progress.ended))
    assert result.is_complete and result.progress.errors == 0
    assert [(row["id"], row["text"]) for row in answers(tmp_path)] == [
        (f"r{number}", f"to p{number}") for number in range(20)
    ]
    assert (result.progress.input_tokens, result.progress.output_tokens) == (40, 60)
    assert seen[-1] == 20


def test_an_answer_that_will_not_do_is_asked_for_again_and_errors_are_rows(scripted, batch, tmp_path):
    tries = []

    def answer(asked):
        tries.append(asked.json()["prompt"])
        return echo(asked)

    run = batch(scripted(answer).address, count=3, max_attempts=2)
    result = run.run(check=lambda text: "not that one" if text == "to p1" else None)
    assert result.is_complete and result.progress.errors == 1
    assert sorted(tries) == ["p0", "p1", "p1", "p2"]
    assert answers(tmp_path)[1]["error"] == {"code": "invalid_answer", "message": "not that one"}
    assert run.run(retry_failed=True).progress.errors == 0
    assert answers(tmp_path)[1]["text"] == "to p1"


def test_what_a_killed_process_had_done_is_not_done_again(scripted, batch, tmp_path):
    asked_for = []

    def answer(asked):
        asked_for.append(asked.json()["prompt"])
        return Answer(delay=60) if len(asked_for) > 10 else echo(asked)

    server = scripted(answer)
    run = batch(server.address, concurrency=1)
    program = f"""
import llmengine
llmengine.Batch({str(tmp_path / "prompts.jsonl")!r}, {str(tmp_path / "answers.jsonl")!r}, model="m", ordered=True, concurrency=1).run()
"""
    process = start_program(tmp_path, program, server.address)
    while len(asked_for) < 11:
        assert process.poll() is None
    process.kill()
    process.wait()
    server._answer = echo
    result = run.run()
    assert result.is_complete
    assert len(server.asked) == 11 + 10
    assert len(answers(tmp_path)) == 20


def test_an_exception_of_on_progress_ends_it_and_loses_nothing(scripted, batch):
    def fail(progress):
        raise RuntimeError("enough")

    run = batch(scripted(echo).address, count=5)
    with pytest.raises(RuntimeError, match="enough"):
        run.run(on_progress=fail)
    assert run.run().is_complete


def test_another_input_is_refused(scripted, batch):
    server = scripted(echo)
    assert batch(server.address, count=3).run().is_complete
    with pytest.raises(ValueError, match="another input"):
        batch(server.address, count=4).run()
