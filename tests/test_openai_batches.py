"""OpenAI's client, unmodified: files and batches."""

import asyncio
import json
import statistics
import threading
import time
from collections import Counter

import openai
import pytest
from full_disk import limit_files_to
from mock_upstream import Mock
from storing import CALLERS, Storing, echo, said, until

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def storing(tmp_path_factory):
    with Storing(tmp_path_factory.mktemp("storing")) as running:
        yield running


@pytest.fixture
def client(storing):
    return client_of(storing)


MADE = []


@pytest.fixture(autouse=True)
def close_clients():
    yield
    while MADE:
        MADE.pop().close()


def client_of(storing, key="alice", max_retries=0):
    MADE.append(openai.OpenAI(base_url=f"{storing.server.address}/v1", api_key=key, max_retries=max_retries))
    return MADE[-1]


def line(number, endpoint=COMPLETIONS, **more):
    said = {"messages": [{"role": "user", "content": f"p{number}"}]} if endpoint == CHAT else {"prompt": f"p{number}"}
    body = {"model": "llama-7b", "max_tokens": 8, **said, **more}
    return json.dumps({"custom_id": f"row-{number}", "method": "POST", "url": endpoint, "body": body})


def begin(client, lines, endpoint=COMPLETIONS, **more):
    file = client.files.create(file=("rows.jsonl", "\n".join(lines).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(client, batch):
    return until(lambda: client.batches.retrieve(batch.id), lambda found: found.status in ENDED)


def lines_of(client, file_id):
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def check_each_once(client, batch, count):
    """One line for each row, with its own answer."""
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", count, 0)
    assert batch.error_file_id is None
    lines = lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"row-{number}" for number in range(count)]
    texts = [line["response"]["body"]["choices"][0]["text"] for line in lines]
    assert texts == [f"to p{number}" for number in range(count)]


@pytest.mark.parametrize("endpoint", [COMPLETIONS, CHAT])
def test_a_batch_from_its_file_to_its_answers(client, endpoint):
    batch = begin(client, [line(number, endpoint) for number in range(5)], endpoint, metadata={"for": "me"})
    assert (batch.object, batch.endpoint, batch.metadata) == ("batch", endpoint, {"for": "me"})
    done = ended(client, batch)
    assert (done.status, done.request_counts.total, done.errors) == ("completed", 5, None)
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at < done.expires_at
    for number, answer in enumerate(lines_of(client, done.output_file_id)):
        assert answer["custom_id"] == f"row-{number}"
        assert (answer["error"], answer["response"]["status_code"]) == (None, 200)
        choice = answer["response"]["body"]["choices"][0]
        assert (choice["message"]["content"] if endpoint == CHAT else choice["text"]) == f"to p{number}"
    output = client.files.retrieve(done.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")


def test_files(client):
    content = bytes(range(256)) * 5000
    made = client.files.create(file=("a.bin", content), purpose="user_data")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(content), "a.bin", "user_data")
    assert made.status == "processed" and made.expires_at > made.created_at
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == content
    short = client.files.create(
        file=("b.txt", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert short.expires_at == short.created_at + 3600
    assert short.id in [file.id for file in client.files.list(purpose="batch")]
    assert made.id not in [file.id for file in client.files.list(purpose="batch")]
    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="could not be found"):
            ask(made.id)


def test_lists_go_on_from_page_to_page(storing):
    client = client_of(storing, "bob")
    files = [client.files.create(file=(f"{number}", b"x"), purpose="user_data").id for number in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == files
    batches = [begin(client, [line(0)]).id for _ in range(3)]
    assert sorted(batch.id for batch in client.batches.list(limit=2)) == sorted(batches)


def test_what_is_another_s_is_not_there(storing, client):
    batch = begin(client, [line(0)])
    other = client_of(storing, "bob")
    with pytest.raises(openai.NotFoundError):
        other.batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        other.batches.cancel(batch.id)
    with pytest.raises(openai.NotFoundError):
        other.files.content(batch.input_file_id)
    with pytest.raises(openai.BadRequestError, match="no file"):
        other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
    assert batch.id not in [found.id for found in other.batches.list()]


def test_mistakes_are_told_by_line(client):
    other = line(1, CHAT)
    failed = ended(client, begin(client, [line(0), "{", other, line(0)]))
    assert failed.status == "failed" and failed.failed_at
    found = [(error.line, error.code, error.param) for error in failed.errors.data]
    assert found == [
        (2, "invalid_json_line", None),
        (3, "mismatched_url", "url"),
        (4, "duplicate_custom_id", "custom_id"),
    ]


def test_rows_that_fail_are_in_the_error_file(client):
    unknown = line(1).replace("llama-7b", "nobody")
    done = ended(client, begin(client, [line(0), unknown, line(2, temperature="hot")]))
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 2)
    errors = [error["response"] for error in lines_of(client, done.error_file_id)]
    assert [error["status_code"] for error in errors] == [404, 400]
    assert errors[0]["body"]["error"]["code"] == "model_not_found"


def test_an_async_client(storing):
    async def go():
        client = openai.AsyncOpenAI(base_url=f"{storing.server.address}/v1", api_key="alice")
        file = await client.files.create(file=("rows.jsonl", line(0).encode()), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint=COMPLETIONS, completion_window="24h")
        while (batch := await client.batches.retrieve(batch.id)).status not in ENDED:
            await asyncio.sleep(0.02)
        assert (await client.files.content(batch.output_file_id)).text.count("to p0") == 1
        await client.close()

    asyncio.run(go())


class Slow:
    """Answers after a while, and counts; those after the first `most` only when it is told to."""

    def __init__(self, seconds, most=None):
        self._seconds, self._most = seconds, most
        self.asked = Counter()
        self.goes_on = threading.Event()

    def __call__(self, asked):
        if asked.path.endswith("/completions"):
            self.asked[said(asked.json)] += 1
            time.sleep(self._seconds)
            if self._most is not None and self.asked.total() > self._most:
                self.goes_on.wait()
        return echo(asked)


def test_cancelled_it_keeps_what_was_done(tmp_path):
    slow = Slow(0, most=100)
    with Storing(tmp_path, answer=slow) as storing:
        client = client_of(storing)
        batch = begin(client, map(line, range(1000)))
        until(lambda: client.batches.retrieve(batch.id), lambda found: found.request_counts.completed >= 10)
        assert client.batches.cancel(batch.id).status == "cancelling"
        slow.goes_on.set()
        done = ended(client, batch)
        assert done.status == "cancelled" and done.cancelling_at <= done.cancelled_at
        counts = done.request_counts
        assert counts.completed + counts.failed == counts.total == 1000
        assert 10 <= counts.completed == len(lines_of(client, done.output_file_id)) == slow.asked.total() < 1000
        assert {error["error"]["code"] for error in lines_of(client, done.error_file_id)} == {"batch_cancelled"}
        with pytest.raises(openai.BadRequestError, match="ended"):
            client.batches.cancel(batch.id)


def kill_again_and_again(tmp_path, rows, kills):
    slow = Slow(0.02)
    with Storing(tmp_path, answer=slow) as storing:
        batch = begin(client_of(storing), map(line, range(rows)))
        for number in range(kills):
            enough = rows * (number + 1) // (kills + 1)
            until(lambda: len(slow.asked), lambda asked, enough=enough: asked >= enough)
            storing.kill_and_restart()
        client = client_of(storing)
        check_each_once(client, ended(client, batch), rows)
        again = slow.asked.total() - rows
        print(f"{rows} rows, {kills} kills: none lost, none doubled; asked again {again}")
        # What was on its way: there are 192 places for rows.
        assert again <= kills * 192
        # What only running it needed is gone.
        kept = [path.suffix for path in (tmp_path / "state" / "batches-0" / "batches").iterdir()]
        assert kept == [".json"]


def test_killed_in_the_middle_it_goes_on_and_every_row_is_answered_once(tmp_path):
    kill_again_and_again(tmp_path, rows=1200, kills=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_30_kills_over_20_000_rows(tmp_path):
    kill_again_and_again(tmp_path, rows=20_000, kills=30)


QUOTA = """
[[policies]]
name = "per-key"
per = ["key"]
requests = { limit = 20, window = "1s", burst = 5 }
"""


def test_it_keeps_to_its_caller_s_quota_and_lets_others_through(tmp_path):
    with Storing(tmp_path, policies=CALLERS + QUOTA) as storing:
        client = client_of(storing)
        began = time.monotonic()
        batch = begin(client, map(line, range(65)))
        # The caller itself is let through between its rows, and another as if nothing was there.
        waits = []
        for key in ("alice", "bob"):
            asks = client_of(storing, key, max_retries=5)
            asked = time.monotonic()
            asks.completions.create(model="llama-7b", prompt="now", max_tokens=1)
            waits.append(time.monotonic() - asked)
        check_each_once(client, ended(client, batch), 65)
        seconds = time.monotonic() - began
    outcomes = Counter(storing.server.outcomes())
    print(f"65 rows at 20 a second: {seconds:.2f} s, {outcomes}; others waited {waits[0]:.2f} s and {waits[1]:.2f} s")
    assert seconds >= 3
    assert waits[1] < 0.5
    # The rows are held, not refused.
    assert outcomes["completed"] == 67
    assert outcomes["rate_limited"] <= 8


def test_a_full_disk_is_told_and_a_batch_waits_for_room(tmp_path):
    full = limit_files_to(300_000)
    long_answers = lambda asked: echo(asked, length=200)  # noqa: E731
    with Storing(tmp_path, answer=long_answers, popen=full) as storing:
        client = client_of(storing)
        with pytest.raises(openai.InternalServerError, match="no room on its disk") as raised:
            client.files.create(file=("large", b"x" * 2_000_000), purpose="user_data")
        assert raised.value.status_code == 507
        assert not list(client.files.list())
        batch = begin(client, map(line, range(600)))
        log = storing.server.log
        until(log.read_text, lambda text: "waits until the disk can be used again" in text)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        storing.kill_and_restart()
        client = client_of(storing)
        done = ended(client, batch)
        assert (done.status, done.request_counts.completed) == ("completed", 600)
        texts = [line["response"]["body"]["choices"][0]["text"] for line in lines_of(client, done.output_file_id)]
        assert texts == [f"to p{number}" * 200 for number in range(600)]


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_rows_go_as_fast_as_they_can_while_others_are_let_through(tmp_path):
    rows = 20_000
    with Mock(milliseconds=10) as mock, Storing(tmp_path, policies=CALLERS, url=mock.url) as storing:
        client = client_of(storing)
        alone, beside = [], []
        measure(client_of(storing, "bob"), alone, lambda: len(alone) < 200)
        began = time.monotonic()
        batch = begin(client, map(line, range(rows)))
        measure(client_of(storing, "bob"), beside, lambda: client.batches.retrieve(batch.id).status not in ENDED)
        seconds = time.monotonic() - began
        done = client.batches.retrieve(batch.id)
        assert (done.status, done.request_counts.completed) == ("completed", rows)
    median, high = statistics.median(beside), statistics.quantiles(beside, n=20)[-1]
    print(
        f"{rows} rows in {seconds:.1f} s, {rows / seconds:.0f} a second; a request of another meanwhile {median * 1e3:.1f} ms, "
        f"19 of 20 within {high * 1e3:.1f} ms, alone {statistics.median(alone) * 1e3:.1f} ms"
    )


def measure(client, times, goes_on):
    while goes_on():
        began = time.monotonic()
        client.completions.create(model="llama-7b", prompt="now", max_tokens=1)
        times.append(time.monotonic() - began)
