"""A registry in this process: speaks the contract, and remembers everything that was asked."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

PATIENCE = 20.0
"""How long a test waits for what must happen, in seconds."""


class FakeRegistry:
    """``watch=False``: as the predecessor, without indices and long polls."""

    def __init__(self, port: int = 0, watch: bool = True) -> None:
        self.condition = threading.Condition()
        self.requests: List[Dict[str, Any]] = []
        self.services: Dict[str, Dict[str, Any]] = {}
        self.index = int(time.time() * 1000)
        self.watch = watch
        self.refuse: Optional[int] = None
        self.raw: Optional[bytes] = None
        """Every answer's body, if not None."""
        self.down = False
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Tests are silent."""

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, reply, index = registry.handle(self.command, self.path, dict(self.headers), body)
                data = json.dumps(reply).encode() if registry.raw is None else registry.raw
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if index is not None:
                    self.send_header("X-Vertice-Index", str(index))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that give up are no news."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        with self.condition:
            self.down = True
            self.condition.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def handle(
        self, method: str, target: str, headers: Dict[str, str], body: Any
    ) -> Tuple[int, Any, Optional[int]]:
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.condition:
            self.requests.append({"line": f"{method} {target}", "headers": headers, "body": body})
            self.condition.notify_all()
            if self.refuse is not None:
                return self.refuse, {"detail": "not now"}, None
            if method == "POST" and url.path == "/register":
                self.set(body["service_name"], body)
                return 201, {"message": "Service registered successfully", "ttl": 60, **body}, None
            if method == "POST" and url.path == "/heartbeat":
                name = body["service_name"]
                if name not in self.services:
                    return 404, {"detail": f"Service '{name}' not registered"}, None
                return 200, {"message": "Heartbeat received", "service_name": name}, None
            if method == "DELETE":
                self.set(url.path.rsplit("/", 1)[1], None)
                return 200, {"message": "Service deregistered"}, None
            if url.path == "/services":
                return 200, sorted(self.services), None
            return self.look_up(url.path.rsplit("/", 1)[1], query)

    def look_up(self, name: str, query: Dict[str, str]) -> Tuple[int, Any, Optional[int]]:
        if self.watch and "watch" in query:
            seen = int(query["watch"])
            self.condition.wait_for(lambda: self.index != seen or self.down, 30)
        index = self.index if self.watch else None
        if name not in self.services:
            return 404, {"detail": f"Service '{name}' not found"}, index
        return 200, self.services[name], index

    def set(self, name: str, service: Optional[Dict[str, Any]]) -> None:
        """Registers or removes; all who watch hear of it."""
        with self.condition:
            if service is None:
                self.services.pop(name, None)
            else:
                self.services[name] = service
            self.index += 1
            self.condition.notify_all()

    def lines(self) -> List[str]:
        with self.condition:
            return [request["line"] for request in self.requests]

    def wait_for(self, fits: Callable[[Dict[str, Any]], bool], count: int = 1) -> Dict[str, Any]:
        """The ``count``-th request that fits, as soon as it has come."""

        def found() -> List[Dict[str, Any]]:
            return [request for request in self.requests if fits(request)]

        with self.condition:
            assert self.condition.wait_for(lambda: len(found()) >= count, PATIENCE), f"missing among {self.requests}"
            return found()[count - 1]

    def wait_line(self, line: str, count: int = 1) -> Dict[str, Any]:
        return self.wait_for(lambda request: request["line"].startswith(line), count)


def free_port() -> int:
    """A port where nobody listens."""
    registry = FakeRegistry()
    registry.close()
    return registry.port


def eventually(probe: Callable[[], Any]) -> Any:
    """Asks until the answer is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
