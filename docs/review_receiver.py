"""Receives the webhooks of an MLflow server and prints a line for each event that concerns a reviewer."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hand1000 import Hand1000Error
from hand1000.registry.webhooks import MAX_BODY, SECRET_VARIABLE, describe_event, verify_webhook


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what MLflow signed, and 401 to anything else."""

    def do_POST(self) -> None:
        """Verify one request."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.send_error(411 if not length.isdecimal() else 413)
            return
        body = self.rfile.read(int(length))
        try:
            payload = verify_webhook(dict(self.headers), body, os.environ[SECRET_VARIABLE])
        except Hand1000Error as error:
            self.send_error(401, str(error))
            return
        self.send_response(204)
        self.end_headers()
        line = describe_event(payload)
        if line:
            print(line, flush=True)  # Or send it to a chat.


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 9000), Receiver).serve_forever()
