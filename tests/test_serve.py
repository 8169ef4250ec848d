"""What an operator sees."""

import requests


def test_the_summary_says_what_a_newcomer_needs(server):
    summary = "\n".join(server.summary)
    assert server.address.startswith("http://127.0.0.1:")
    for word in ("root", "smollm2-135m", "llama-7b", "curl"):
        assert word in summary, summary
    assert server.summary[-1].startswith("ready")


def test_the_summary_names_the_limits_in_force(used_up_server):
    assert "one-an-hour" in "\n".join(used_up_server.summary)


def test_health_needs_no_key_and_is_not_limited(used_up_server):
    for route in ("healthz", "readyz", "healthcheck"):
        for _ in range(5):
            assert requests.get(f"{used_up_server.address}/{route}", timeout=10).status_code == 200, route


def test_the_limits_in_force_and_how_to_retry_are_told_without_a_key(used_up_server):
    for page, content_type in [("rate-limits", "text/html"), ("rate-limits.md", "text/markdown")]:
        answer = requests.get(f"{used_up_server.address}/{page}", timeout=10)
        assert answer.status_code == 200, page
        assert answer.headers["Content-Type"].startswith(content_type), page
        for words in ("one-an-hour", "1 request per hour", "Retry-After", "tenacity"):
            assert words in answer.text, f"no {words} in {page}"
