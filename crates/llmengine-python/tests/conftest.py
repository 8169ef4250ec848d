import json
import os
import subprocess
import sys

import pytest
from scripted import Scripted


@pytest.fixture
def client(monkeypatch):
    """Returns the package after pointing it at an address."""
    import llmengine

    monkeypatch.delenv("SCALE_API_KEY", raising=False)

    def use(address):
        monkeypatch.setenv("LLM_ENGINE_BASE_PATH", address)
        return llmengine

    return use


@pytest.fixture
def scripted():
    """Starts servers that answer as they are told."""
    started = []

    def start(answer):
        server = Scripted(answer)
        server.__enter__()
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__()


@pytest.fixture
def program(tmp_path):
    """Runs a program in a process of its own; what it prints last is JSON, which is returned."""

    def run(source, address, timeout=100):
        process = start_program(tmp_path, source, address)
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        return json.loads(output.splitlines()[-1])

    return run


def start_program(folder, source, address, *options):
    """A program in a process of its own."""
    path = folder / "program.py"
    path.write_text(source)
    environment = {name: value for name, value in os.environ.items() if name != "SCALE_API_KEY"}
    return subprocess.Popen(
        [sys.executable, *options, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environment, "LLM_ENGINE_BASE_PATH": address},
    )
