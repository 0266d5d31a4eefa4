"""A service that knows nothing of the gateway: /health, and every other path says what was asked of whom."""

import http.server
import json
import os
import signal
import socket
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer("application/json", json.dumps({"status": "healthy", "version": "1.0.0"}))
        else:
            self.answer("text/plain", f"Hello from {socket.gethostname()}: you asked for {self.path}\n")

    def answer(self, kind, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Health checks would be all that there is to see."""


# The first process of a container ends on a signal only if it says so.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
