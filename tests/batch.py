"""`llm-engine batch run` as a process."""

import csv
import json
import os
import subprocess

from server import BINARY, REPOSITORY

COMPLETE, WITH_ERRORS, INCOMPLETE, WRONG = 0, 3, 4, 2


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(count, **fields):
    return [{"id": f"row-{number}", "prompt": f"p{number}", "model": "m", **fields} for number in range(count)]


def command(folder, url, *arguments, name="prompts.jsonl", out="answers.jsonl"):
    server = ["--base-url", url] if url else []
    files = [str(folder / name), "--out", str(folder / out)]
    return [str(REPOSITORY / BINARY), "batch", "run", *files, *server, *map(str, arguments)]


def start(folder, url, *arguments, env=None, **options):
    """Begins a run, or goes on with it. What it says on standard error goes to a file."""
    popen = {name: options.pop(name) for name in ("preexec_fn", "restore_signals") if name in options}
    with (folder / "batch.log").open("ab") as log:
        return subprocess.Popen(
            command(folder, url, *arguments, "--json", **options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **(env or {})},
            **popen,
        )


def run(folder, url, *arguments, code=COMPLETE, **options):
    """Runs it to its end, and returns the summary."""
    process = start(folder, url, *arguments, **options)
    output, _ = process.communicate(timeout=1000)
    assert process.returncode == code, f"{process.returncode}\n{(folder / 'batch.log').read_text()[-2000:]}"
    return json.loads(output) if output else None


def answers(folder, out="answers.jsonl"):
    path = folder / out
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            return list(csv.DictReader(lines))
    return [json.loads(line) for line in path.read_text().splitlines()]


def may_be_double(folder):
    """The ids of the rows of which the journal says that they may have been generated more than once."""
    ended = (line.split(" ", 8) for line in (folder / "answers.jsonl.journal").read_text().splitlines() if line[9:11] == "E ")
    return {json.loads(outcome)["id"] for *_, is_double, _, _, _, outcome in ended if is_double == "1"}


def check_each_once(folder, count):
    """One row for each row, with its own answer."""
    rows = answers(folder)
    assert len(rows) == count
    texts = {row["id"]: row.get("text") for row in rows}
    wrong = [number for number in range(count) if texts.get(f"row-{number}") != f"to p{number}"]
    assert not wrong, f"{len(wrong)} rows have no answer or another's, the first {wrong[:5]}"
