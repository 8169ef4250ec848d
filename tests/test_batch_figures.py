"""What `llm-engine batch run` costs, by the real clock and with the real server: figures that BENCHMARKS.md has."""

import asyncio
import json
import os
import resource
import statistics
import time
import zlib
from collections import Counter
from pathlib import Path

import batch
import openai
import pytest
from faulty import Faulty
from mock_upstream import Mock
from server import Server, model_at
from upstream import Upstream

QUOTA = """
[[policies]]
name = "per-key"
per = ["key"]
requests = {{ limit = {limit}, window = "1s", burst = {burst} }}
"""


def to_server(folder, address, *arguments, **options):
    return batch.run(folder, None, "--url", address, *arguments, **options)


def run_on_quota(folder, rows, limit):
    """Returns the calls for each row, and how much longer than at best it took."""
    texts = [{"prompt": f"p{number}", "model": "llama-7b", "max_new_tokens": 1, "temperature": 0} for number in range(rows)]
    batch.write_rows(folder / "prompts.jsonl", texts)
    with Upstream() as upstream:
        with Server(folder, QUOTA.format(limit=limit, burst=limit), model_at(upstream.url)) as server:
            summary = to_server(folder, server.address)
        outcomes = Counter(server.outcomes())
        assert Counter(upstream.prompts).most_common(1)[0][1] == 1, "none is generated twice"
    assert summary["answered"] == rows
    best = (rows - limit) / limit
    calls, times = outcomes.total() / rows, summary["session"]["seconds"] / best
    print(f"{rows} rows at {limit} a second: {calls:.3f} calls a row, {times:.3f} times the optimum of {best:.1f} s")
    return calls, times


def test_a_quota_of_the_server_is_kept(tmp_path):
    calls, times = run_on_quota(tmp_path, rows=120, limit=20)
    assert calls <= 1.2
    assert times <= 1.5, "what else the machine does is in it"


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_1000_rows_at_10_a_second(tmp_path):
    calls, times = run_on_quota(tmp_path, rows=1000, limit=10)
    assert calls <= 1.05
    assert times <= 1.02


def cost_of(process, code=batch.COMPLETE):
    """Waits for its end. Returns its processor seconds, its largest memory in MB, and what it printed.

    What the system says of the memory at the end counts this process before it became that one, so it is looked at meanwhile.
    """
    memory = 0
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory = max([memory, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.005)
    process.returncode = os.waitstatus_to_exitcode(status)
    with process.stdout:
        output = process.stdout.read()
    assert process.returncode == code, output
    return usage.ru_utime + usage.ru_stime, memory, json.loads(output)


def run_counted(folder, url, *arguments):
    began = time.monotonic()
    process = batch.start(folder, url, *arguments)
    # It says nothing before its end, so the pipe can wait.
    cpu, memory, _ = cost_of(process)
    return cpu, memory, time.monotonic() - began


async def with_openai(url, rows, concurrency):
    places = asyncio.Semaphore(concurrency)

    async def ask(client, number):
        async with places:
            messages = [{"role": "user", "content": f"p{number}"}]
            answer = await client.chat.completions.create(model="m", messages=messages)
            return answer.choices[0].message.content

    async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
        return await asyncio.gather(*(ask(client, number) for number in range(rows)))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_100_000_rows_at_2000_a_second(tmp_path):
    """A tenth of a second for each row, 200 at once: a script with OpenAI's client is given the same, and fewer rows."""
    rows, few = 100_000, 5_000
    with Mock(milliseconds=100) as mock:
        batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(rows))
        cpu, memory, seconds = run_counted(tmp_path, mock.url, "--concurrency", 200)
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.monotonic()
        asyncio.run(with_openai(mock.url, few, 200))
        their_seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
    theirs = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / few
    ours = cpu / rows
    print(
        f"{rows} rows in {seconds:.1f} s ({rows / seconds:.0f}/s): {ours * 1e6:.0f} us of processor time a row, "
        f"{ours * 2000:.1%} of a core at 2,000/s, {memory:.0f} MB; with OpenAI's client {theirs * 1e6:.0f} us a row, "
        f"{few / their_seconds:.0f} rows/s"
    )
    assert ours * 2000 <= 0.25
    assert memory <= 100


def write_journal(folder, rows, ended):
    """A journal of a run in which the first rows have ended: written here, because a million answers take a while."""
    path = folder / "answers.jsonl.journal"

    def line(said):
        return f"{zlib.crc32(said.encode()):08x} {said}\n"

    with path.open("a") as journal:
        for number in range(ended):
            answer = {"text": f"to p{number}", "usage": {"input_tokens": 5, "output_tokens": 3}}
            outcome = {"id": f"row-{number}", "answer": answer, "attempts": 1}
            journal.write(line(f"B {number} 0 0"))
            journal.write(line(f"E {number} ok 0 5 3 0 {json.dumps(outcome)}"))


def go_on_from(folder, rows, left):
    """Goes on with a run from this journal, which is as before afterwards.

    Returns the seconds until the first row is sent, and the memory in MB.
    """
    journal = folder / "answers.jsonl.journal"
    length = journal.stat().st_size
    with Faulty(seconds=0) as server:
        began = time.monotonic()
        process = batch.start(folder, server.url, "--ordered")
        while server.calls == 0 and process.poll() is None:
            time.sleep(0.005)
        first = time.monotonic() - began
        _, memory, _ = cost_of(process)
        assert server.calls <= left + 256
    batch.check_each_once(folder, rows)
    os.truncate(journal, length)
    (folder / "answers.jsonl").unlink()
    return first, memory


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_rows(tmp_path):
    """How many rows there are is no matter of memory: neither when a run begins nor when it is gone on with.

    Of runs that are gone on with the middle ones are compared: how many answers arrive at one moment is another in each.
    """
    left, times = 1_000, 5
    beginning, going_on = {}, {}
    for rows in (1_000, 100_000, 1_000_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        batch.write_rows(folder / "prompts.jsonl", batch.prompts(rows))
        # Nobody is there, and it waits for a moment, so that its memory can be looked at.
        began = time.monotonic()
        process = batch.start(folder, "http://127.0.0.1:9/v1", "--deadline", "500ms")
        _, beginning[rows], _ = cost_of(process, code=batch.INCOMPLETE)
        survey = time.monotonic() - began - 0.5
        write_journal(folder, rows, rows - left)
        firsts, memories = zip(*(go_on_from(folder, rows, left) for _ in range(times)), strict=True)
        going_on[rows] = statistics.median(memories)
        print(
            f"{rows} rows: {survey:.1f} s to look at, {beginning[rows]:.1f} MB; going on sends after {max(firsts):.2f} s at most, "
            f"{going_on[rows]:.1f} MB, the middle of {min(memories):.1f} … {max(memories):.1f}"
        )
        assert max(firsts) <= 5
        for memory in (beginning, going_on):
            assert memory[rows] <= memory[1_000] + 5


def check_texts_over_a_restart(tmp_path, count):
    """All texts are there and as without a disturbance, if the server is killed in the middle and started again."""
    words = ("sky", "sea", "sun", "moon", "rain", "wind", "fire", "snow", "tree", "stone")
    rows = [
        {"id": f"{number}", "prompt": f"Tell me something about the {words[number % 10]}, number {number}."}
        for number in range(count)
    ]
    fields = ("--model", "llama-7b", "--max-new-tokens", 12, "--temperature", 0, "--ordered")
    texts, summaries = [], []
    for is_disturbed in (False, True):
        folder = tmp_path / str(is_disturbed)
        folder.mkdir()
        batch.write_rows(folder / "prompts.jsonl", rows)
        with Server(folder) as server:
            process = batch.start(folder, None, "--url", server.address, *fields)
            if is_disturbed:
                wait_for_answers(folder / "answers.jsonl.journal", count // 2)
                server.kill()
                server.restart()
            summaries.append(json.loads(process.communicate(timeout=1500)[0]))
            assert process.returncode == batch.COMPLETE, summaries[-1]
        texts.append([row["text"] for row in batch.answers(folder)])
    same = sum(mine == theirs for mine, theirs in zip(*texts, strict=True))
    seconds = [summary["session"]["seconds"] for summary in summaries]
    twice = summaries[1]["may_be_generated_twice"]
    print(
        f"{same} of {count} texts are equal; {seconds[0]:.1f} s undisturbed, {seconds[1]:.1f} s with a kill, "
        f"{twice} may have been generated twice"
    )
    assert same == count


def wait_for_answers(journal, count):
    while not journal.exists() or journal.read_bytes().count(b" ok ") < count:
        time.sleep(0.02)


def test_texts_are_the_same_if_the_model_s_server_is_killed_in_the_middle(tmp_path):
    check_texts_over_a_restart(tmp_path, 12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_500_prompts_by_the_model_whose_server_is_killed_in_the_middle(tmp_path):
    check_texts_over_a_restart(tmp_path, 500)
