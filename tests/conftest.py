import os

import pytest

# Read by the published client when it is imported.
os.environ["LLM_ENGINE_DISABLE_VERSION_CHECK"] = "true"

from server import Server  # noqa: E402

NEARLY_NOTHING = """
[[policies]]
name = "one-an-hour"
per = ["key"]
requests = { limit = 1, window = "60m" }
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server without limits."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def used_up_server(tmp_path_factory):
    """A server whose policy `one-an-hour` has admitted what it admits."""
    import requests

    with Server(tmp_path_factory.mktemp("used-up"), NEARLY_NOTHING) as running:
        answer = requests.post(
            f"{running.address}/v1/llm/completions-sync?model_endpoint_name=llama-7b",
            json={"prompt": "Hi", "max_new_tokens": 1, "temperature": 0},
            auth=("root", ""),
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        yield running


@pytest.fixture
def published_client(monkeypatch):
    """Returns the published client after pointing it at a server, with its default key or the one given."""

    def use(address, key=None):
        import llmengine

        monkeypatch.setenv("LLM_ENGINE_BASE_PATH", address)
        if key is None:
            monkeypatch.delenv("SCALE_API_KEY", raising=False)
        else:
            monkeypatch.setenv("SCALE_API_KEY", key)
        return llmengine

    return use
