"""Something to put between a program and the server, so that what the program was answered can be counted
without a change to the program."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from listener import Listener

UPSTREAM_TIMEOUT_SECONDS = 100
# Headers that concern one connection only.
OWN_HEADERS = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


class Relay(Listener):
    """Passes requests on unchanged, and notes each answer's status. A context; not for streams."""

    def __init__(self, upstream):
        self._upstream = urlsplit(upstream)
        self._answered = threading.Condition()
        self.statuses = []

    def wait_for(self, status, timeout):
        """Whether an answer with this status has been seen, or is within `timeout` seconds."""
        with self._answered:
            return self._answered.wait_for(lambda: status in self.statuses, timeout)

    def _note(self, status):
        with self._answered:
            self.statuses.append(status)
            self._answered.notify_all()

    def _ask(self, method, path, headers, body):
        connection = http.client.HTTPConnection(
            self._upstream.hostname, self._upstream.port, timeout=UPSTREAM_TIMEOUT_SECONDS
        )
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _handler_class(relay):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS
                }
                status, headers, body = relay._ask(self.command, self.path, headers, body)
                relay._note(status)
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in OWN_HEADERS:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        return Handler
