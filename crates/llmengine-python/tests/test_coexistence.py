"""The published package has the same import name: who has both is told."""

import os
import subprocess
import sys


def run(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=folder,
        env={**os.environ, **environment},
    )


def other_package(folder):
    """What pip leaves of the published package, for those who ask what is installed."""
    about = folder / "scale_llm_engine-0.0.0b45.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: scale-llm-engine\nVersion: 0.0.0b45\n")
    return {"PYTHONPATH": str(folder)}


def test_it_warns_when_the_other_is_installed_too(tmp_path):
    where = other_package(tmp_path)
    done = run(tmp_path, "-c", "import llmengine", **where)
    assert done.returncode == 0
    assert "UserWarning: scale-llm-engine 0.0.0b45 is installed too" in done.stderr
    assert "pip uninstall -y scale-llm-engine" in done.stderr
    done = run(tmp_path, "-m", "llmengine", **where)
    assert done.returncode == 1
    assert "pip uninstall -y scale-llm-engine" in done.stdout


def test_alone_it_says_nothing(tmp_path):
    done = run(tmp_path, "-W", "error", "-c", "import llmengine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run(tmp_path, "-m", "llmengine", LLM_ENGINE_BASE_PATH="http://127.0.0.1:7")
    assert done.returncode == 0
    assert "server: http://127.0.0.1:7" in done.stdout


def test_importing_it_is_quick_and_calls_nobody(tmp_path):
    program = """
import socket, sys, time
def refuse(*_):
    raise AssertionError("a connection at import")
socket.socket.connect = refuse
begun = time.perf_counter()
import llmengine
print(time.perf_counter() - begun)
"""
    done = run(tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
