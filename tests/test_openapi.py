"""Requests made up by schemathesis, from the server's own description of itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from server import Server, model_at
from upstream import Upstream

CONFIG = Path(__file__).with_name("schemathesis.toml")


def run(address, seconds, *arguments):
    """Runs schemathesis for so long; it ends with 1 if any answer is not as the document says."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{address}/openapi.json"]
    limits = ["--max-time", str(seconds), "--workers", "1", "--warnings", "off", *arguments]
    # It keeps what it has found in the working folder.
    return subprocess.run(
        [*command, *limits], capture_output=True, text=True, timeout=seconds + 60, cwd=CONFIG.parent, check=False
    )


def check(tmp_path, seconds, *arguments):
    state = tmp_path / "state"
    with Upstream() as upstream, Server(tmp_path, model=model_at(upstream.url), state_folder=state) as server:
        ran = run(server.address, seconds, *arguments)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert requests.get(f"{server.address}/readyz", timeout=5).status_code == 200
        print(ran.stdout)


def test_every_answer_is_as_the_document_says(tmp_path):
    check(tmp_path, 45, "--seed", "1", "--phases", "examples,coverage,fuzzing", "--max-examples", "20")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_for_ten_minutes_every_answer_is_as_the_document_says(tmp_path):
    check(tmp_path, 600)
