"""A small HTTP server in this process, for tests that stand between programs or behind them."""

import sys
import threading
from http.server import ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Connections that break, because whoever had them was killed, are no news. Many may come at once."""

    request_queue_size = 1024

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Listener:
    """A context, in which `address` is answered by what `_handler_class` returns."""

    def __enter__(self):
        self._listener = Server(("127.0.0.1", 0), self._handler_class())
        self.address = f"http://127.0.0.1:{self._listener.server_port}"
        self._thread = threading.Thread(target=self._listener.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised):
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
