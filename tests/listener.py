"""A small HTTP server in this process, for tests that stand between programs or behind them."""

import threading
from http.server import ThreadingHTTPServer


class Listener:
    """A context, in which `address` is answered by what `_handler_class` returns."""

    def __enter__(self):
        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), self._handler_class())
        self.address = f"http://127.0.0.1:{self._listener.server_port}"
        self._thread = threading.Thread(target=self._listener.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised):
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
