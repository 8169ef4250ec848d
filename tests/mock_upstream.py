"""The upstream of the benchmarks."""

import subprocess

from server import BINARY, REPOSITORY


class Mock:
    """The upstream of `make bench-gateway`, which answers each request after `milliseconds`. A context."""

    def __init__(self, milliseconds):
        binary = REPOSITORY / BINARY.parent / "gateway-bench"
        self._command = [str(binary), "upstream", "--whole-ms", str(milliseconds)]

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        address = self._process.stdout.readline().split()[-1]
        self.url = address if address.startswith("http") else f"http://{address}"
        self.url += "/v1"
        return self

    def __exit__(self, *raised):
        self._process.kill()
        self._process.communicate()
