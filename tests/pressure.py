"""Other work of the same key, which keeps its quota nearly empty."""

import threading

import requests

REQUEST_TIMEOUT_SECONDS = 60
# Only if an answer lacks the hint, which another test looks at.
WAIT_WITHOUT_HINT_SECONDS = 0.05


class Pressure:
    """Threads that send tiny requests, and after each refusal come back exactly when they were told to. A context."""

    def __init__(self, address, key="root", threads=2):
        self._url = f"{address}/v1/llm/completions-sync?model_endpoint_name=llama-7b"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._ended = threading.Event()
        self._counted = threading.Condition()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]
        self.statuses = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised):
        self.end()

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_until_refused(self, timeout):
        """Whether the quota is used up, at the latest in `timeout` seconds."""
        with self._counted:
            return self._counted.wait_for(lambda: 429 in self.statuses, timeout)

    def _send(self):
        body = {"prompt": "Hi", "max_new_tokens": 1, "temperature": 0}
        while not self._ended.is_set():
            answer = requests.post(
                self._url, json=body, headers=self._headers, timeout=REQUEST_TIMEOUT_SECONDS
            )
            with self._counted:
                self.statuses.append(answer.status_code)
                self._counted.notify_all()
            if answer.status_code == 429:
                hint = answer.headers.get("retry-after-ms")
                self._ended.wait(int(hint) / 1000 if hint else WAIT_WITHOUT_HINT_SECONDS)
