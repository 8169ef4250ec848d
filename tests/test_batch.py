"""`llm-engine batch run`: whatever happens, one row for each row."""

import json
import random
import shutil
import signal
import subprocess
import time

import batch
import pytest
from faulty import Faulty
from full_disk import limit_files_to


def end_after(process, seconds):
    """Kills it after this time, unless it is done before. Whether it was killed."""
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True


class Misfortune:
    """Runs a batch, in which everything happens, to its end.

    It is killed at random shares of its rows, and not of a time: how far a run comes until then is up to the machine.
    """

    def __init__(self, folder, rows, kills, storm_seconds, seed=7):
        self._folder, self._kills, self._seconds = folder, kills, storm_seconds
        self._random = random.Random(seed)
        # The last rows are left for the end, so that no run is over before it is killed.
        self._moments = sorted(self._random.randrange(rows * 95 // 100) for _ in range(kills))
        batch.write_rows(folder / "prompts.jsonl", batch.prompts(rows))
        self._arguments = ("--concurrency", 64, "--max-attempts", 20)

    def run(self, server):
        """Returns how often it was killed, and the last summary."""
        kills = 0
        for kill, moment in enumerate(self._moments):
            self._before(kill, server)
            process = batch.start(self._folder, server.url, *self._arguments)
            kills += end_after(process, self._wait(kill, moment, process, server))
            server.storm = False
        return kills, batch.run(self._folder, server.url, *self._arguments)

    def _before(self, kill, server):
        """Storms every tenth time; the server's first restart, while nobody asks, and a full disk at their times."""
        if kill == self._kills // 3:
            server.restart()
        if kill == self._kills // 2:
            self._fill_disk(server)
        server.storm = kill % 10 == 3

    def _wait(self, kill, moment, process, server):
        """Waits until it is nearly time for this kill, and returns the seconds that are left."""
        if server.storm:
            # Nobody is answered in it, so no share of the rows would come.
            return self._random.uniform(*self._seconds)
        if kill == 2 * self._kills // 3:
            # The second restart, under a run.
            self._wait_for(len(server.answered) + 64, process, server)
            server.restart()
        self._wait_for(moment, process, server)
        # Not always when an answer has just gone out.
        return self._random.uniform(0, 0.02)

    @staticmethod
    def _wait_for(rows, process, server):
        while len(server.answered) < rows and process.poll() is None:
            time.sleep(0.001)

    def _fill_disk(self, server):
        journal = self._folder / "answers.jsonl.journal"
        full = limit_files_to(journal.stat().st_size + 3_000)
        summary = batch.run(self._folder, server.url, *self._arguments, code=batch.INCOMPLETE, **full)
        assert "make room, then run the same command again" in summary["message"]


def suffer(folder, rows, kills, storm_seconds):
    with Faulty(failed=0.03, cut=0.02, seconds=0.03) as server:
        killed, summary = Misfortune(folder, rows, kills, storm_seconds).run(server)
        batch.check_each_once(folder, rows)
        again = server.answered.total() - rows
        doubled = {f"row-{prompt[1:]}" for prompt, times in server.generated.items() if times > 1}
    told = batch.may_be_double(folder)
    assert len(told) == summary["may_be_generated_twice"]
    # This server forgets everything at a restart, and generates anew what comes again before it is done. The summary says how many
    # rows that may be: all of those are among them, and others of which nobody but the server knows that they were not.
    assert doubled <= told, f"{len(doubled - told)} rows were generated twice, and it isn't told"
    print(
        f"{rows} rows, {killed} kills: none lost, none doubled; answered again {again} ({again / max(1, killed):.1f} a kill); "
        f"{len(doubled)} rows were generated more than once by this server, which forgets and does not wait for itself: all of them are "
        f"among the {len(told)} of which the summary says that they may have been; {server.refused} refusals"
    )
    return killed, again, summary


def test_killed_and_failed_again_and_again_every_row_is_answered_once(tmp_path):
    killed, _, summary = suffer(tmp_path, rows=3_000, kills=6, storm_seconds=(0.1, 0.4))
    assert killed == 6
    assert summary["errors"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_100_kills_over_20_000_rows(tmp_path):
    killed, again, summary = suffer(tmp_path, rows=20_000, kills=100, storm_seconds=(0.2, 0.8))
    assert killed == 100
    assert summary["errors"] == 0
    # At most what was on its way, which is no more than 64 rows: less than a tenth of a second of work.
    assert again <= 64 * (killed + 2)


@pytest.mark.parametrize("out", ["answers.jsonl", "answers.csv"])
def test_a_quota_is_kept_without_running_against_it(tmp_path, out):
    batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(150))
    with Faulty(per_second=100) as server:
        batch.run(tmp_path, server.url, "--ordered", out=out)
    rows = batch.answers(tmp_path, out)
    assert [row["id"] for row in rows] == [f"row-{number}" for number in range(150)]
    assert all(row["text"] == f"to p{number}" for number, row in enumerate(rows))
    assert server.calls <= 1.5 * 150


def test_a_disk_that_is_full_is_told_and_gone_on_from(tmp_path):
    """A real one, of 64 KiB, where a user may mount one."""
    batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(500))
    script = """
        set -e
        mount -t tmpfs -o size={size}k tmpfs "$0"
        [ ! -e "$1" ] || cp "$1" "$0/answers.jsonl.journal"
        code=0
        shift
        "$@" || code=$?
        cp "$0"/answers.* "$KEPT"
        exit $code
    """
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    journal = tmp_path / "journal"

    def run(size, url):
        arguments = batch.command(tmp_path, url, "--json")
        arguments[arguments.index("--out") + 1] = str(disk / "answers.jsonl")
        return subprocess.run(
            ["unshare", "-rm", "env", f"KEPT={kept}", "bash", "-c", script.format(size=size), disk, journal, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )

    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", disk], capture_output=True).returncode:
        pytest.skip("no user may mount a file system here")
    with Faulty() as server:
        full = run(64, server.url)
        assert full.returncode == batch.INCOMPLETE, full.stderr
        assert "No space left on device" in full.stderr and "make room" in full.stderr
        assert not (kept / "answers.jsonl").exists()
        shutil.copy(kept / "answers.jsonl.journal", journal)
        done = run(4096, server.url)
        assert done.returncode == batch.COMPLETE, done.stderr
    shutil.copy(kept / "answers.jsonl", tmp_path)
    batch.check_each_once(tmp_path, 500)
    # What had been written down was not asked for again.
    assert server.answered.total() <= 500 + 256


def test_interrupted_it_lets_rows_arrive_and_goes_on_later(tmp_path):
    batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(400))
    with Faulty(seconds=0.1) as server:
        process = batch.start(tmp_path, server.url, "--concurrency", 20)
        while server.answered.total() < 40:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        summary = json.loads(output)
        assert process.returncode == batch.INCOMPLETE
        assert summary["end"] == "stopped"
        assert summary["answered"] == server.answered.total(), "none that had been sent is lost"
        assert not (tmp_path / "answers.jsonl").exists()
        batch.run(tmp_path, server.url)
    batch.check_each_once(tmp_path, 400)
    assert server.calls == 400


def test_rows_of_several_models_by_several_keys(tmp_path):
    rows = [{**row, "model": f"m{number % 3}"} for number, row in enumerate(batch.prompts(60))]
    batch.write_rows(tmp_path / "prompts.jsonl", rows)
    with Faulty() as server:
        keys = {"KEY_A": "a", "KEY_B": "b"}
        batch.run(tmp_path, server.url, "--key-env", "KEY_A,KEY_B", "--concurrency", 12, env=keys)
    batch.check_each_once(tmp_path, 60)
    assert server.models == {"m0": 20, "m1": 20, "m2": 20}
    assert set(server.keys) == {"Bearer a", "Bearer b"}


def test_openai_s_lines_are_answered_by_openai_s_lines(tmp_path):
    def line(number):
        body = {"model": "m", "messages": [{"role": "user", "content": f"p{number}"}]}
        return {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}

    batch.write_rows(tmp_path / "prompts.jsonl", map(line, range(5)))
    with Faulty() as server:
        batch.run(tmp_path, server.url, "--ordered")
    rows = batch.answers(tmp_path)
    assert [row["custom_id"] for row in rows] == [f"c{number}" for number in range(5)]
    first = rows[0]
    assert (first["error"], first["response"]["status_code"]) == (None, 200)
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "to p0"


def test_answers_that_do_not_fit_the_schema_are_asked_for_again(tmp_path):
    batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(3))
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    tries = {}

    def text(body):
        prompt = body["messages"][-1]["content"]
        tries[prompt] = tries.get(prompt, 0) + 1
        if prompt == "p2":
            return '{"n": "one"}'
        return '{"n": 1}' if prompt == "p0" or tries[prompt] == 3 else "no JSON"

    with Faulty(text=text) as server:
        arguments = ("--validate", tmp_path / "schema.json", "--max-attempts", 4, "--ordered")
        summary = batch.run(tmp_path, server.url, *arguments, code=batch.WITH_ERRORS)
        assert (summary["answered"], summary["errors"]) == (2, 1)
        assert tries == {"p0": 1, "p1": 3, "p2": 4}
        failed = batch.answers(tmp_path)[2]
        assert failed["error"]["code"] == "invalid_answer"
        assert "/n" in failed["error"]["message"]

        # The schema was wrong, not the answer.
        schema["properties"]["n"] = {}
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        batch.run(tmp_path, server.url, "--retry-failed", *arguments)
    assert tries == {"p0": 1, "p1": 3, "p2": 5}
    assert [row["text"] for row in batch.answers(tmp_path)] == ['{"n": 1}', '{"n": 1}', '{"n": "one"}']


def test_what_it_would_take_and_what_a_sample_took(tmp_path):
    batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(1000, max_new_tokens=100))
    prices = ("--input-usd-per-million", "1", "--output-usd-per-million", "2")
    with Faulty() as server:
        estimate = batch.run(tmp_path, server.url, "--dry-run", *prices)
        assert (estimate["rows"], estimate["output_tokens_at_most"]) == (1000, 100_000)
        assert server.calls == 0 and not (tmp_path / "answers.jsonl.journal").exists()

        process = subprocess.run(
            batch.command(tmp_path, server.url, "--sample", 10, *prices), capture_output=True, text=True
        )
        assert process.returncode == batch.COMPLETE
        lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
        assert [line["text"] for line in lines] == [f"to p{number}" for number in range(0, 1000, 100)]

        # 8 tokens and 11 millionths of a dollar for each answer; more is reserved while it is on its way.
        spent = batch.run(tmp_path, server.url, "--max-usd", "0.002", *prices, code=batch.INCOMPLETE)
        assert spent["end"] == "most_reached"
        assert 0.0015 < spent["usd"] <= 0.002
        batch.run(tmp_path, server.url, *prices)
    assert server.calls == 1000
    batch.check_each_once(tmp_path, 1000)


def test_a_wrong_key_or_a_changed_input_is_told_before_anything_is_lost(tmp_path):
    rows = batch.write_rows(tmp_path / "prompts.jsonl", batch.prompts(10))
    with Faulty(seconds=0.2) as server:
        assert end_after(batch.start(tmp_path, server.url, "--concurrency", 1), 0.5)
        rows.write_text(rows.read_text().replace("p9", "p90"))
        process = batch.start(tmp_path, server.url)
        process.communicate(timeout=20)
        assert process.returncode == batch.WRONG
        assert "another input" in (tmp_path / "batch.log").read_text()
        process = batch.start(tmp_path, server.url, "--temperature", "0.5")
        process.communicate(timeout=20)
        assert process.returncode == batch.WRONG
