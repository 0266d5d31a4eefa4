"""How this package speaks HTTP: one request, one connection, everything bounded."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

ANSWER_MAX = 8 * 1024 * 1024
"""Longer answers are refused, in bytes."""

_PIECE = 64 * 1024
_DETAIL_MAX = 1000


class RegistryError(Exception):
    """A call of the registry failed.

    ``status`` is what the registry answered, or ``None`` when no registry could be reached; ``index`` is
    the registry's index where it sent one.
    """

    def __init__(self, message: str, status: Optional[int] = None, index: Optional[int] = None) -> None:
        super().__init__(message)
        self.status = status
        self.index = index


class Answer:
    """A 2xx: the JSON body, and the registry's index where it sent one."""

    def __init__(self, body: Any, index: Optional[int]) -> None:
        self.body = body
        self.index = index


class Transport:
    """Speaks to one of several registries: the one that answered last, and the next when that one does not.

    Every call of the registry's API may be repeated without harm, so a call that got no answer (or 5xx) simply goes to
    the next address.
    """

    def __init__(self, urls: str, token: Optional[str], timeout: float) -> None:
        self.urls = parse_urls(urls)
        self.timeout = timeout
        self._token = _checked_token(token)
        self._current = 0
        self._lock = threading.Lock()

    def call(
        self, method: str, path: str, body: Optional[Dict[str, Any]] = None, timeout: Optional[float] = None
    ) -> Answer:
        """One call, at most ``timeout`` seconds at each registry.

        Raises :class:`RegistryError` when nobody answers, or with the status when the answer is a refusal.
        """
        with self._lock:
            first = self._current
        error = RegistryError("no registry is configured")
        for n in range(len(self.urls)):
            index = (first + n) % len(self.urls)
            try:
                answer = self._ask(self.urls[index], method, path, body, timeout or self.timeout)
            except RegistryError as failure:
                error = failure
                if failure.status is None or failure.status >= 500:
                    continue
                self._keep(index)
                raise
            self._keep(index)
            return answer
        raise error

    def _keep(self, index: int) -> None:
        with self._lock:
            self._current = index

    def _ask(
        self, base: Tuple[str, str, str], method: str, path: str, body: Optional[Dict[str, Any]], timeout: float
    ) -> Answer:
        scheme, authority, prefix = base
        where = f"{scheme}://{authority}"
        connect = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "vertice-client-python/0.1.0"}
        if self._token is not None:
            headers["X-Registry-Token"] = self._token
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection = connect(authority, timeout=timeout)
            try:
                connection.request(method, prefix + path, body=data, headers=headers)
                with connection.getresponse() as response:
                    raw = _read(response, time.monotonic() + timeout)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise RegistryError(f"failed to reach the registry at {where}: {reason}") from error
        index = _index(response.getheader("X-Vertice-Index"))
        if not 200 <= response.status < 300:
            detail = _detail(raw)
            raise RegistryError(f"the registry at {where} answered {response.status}{detail}", response.status, index)
        try:
            return Answer(_parsed(raw), index)
        except ValueError as error:
            raise RegistryError(f"failed to read the answer of the registry at {where}: {error}") from error


def parse_urls(text: str) -> List[Tuple[str, str, str]]:
    """Reads a comma-separated list of ``http(s)://host[:port][/prefix]`` as (scheme, authority, prefix).

    Raises ``ValueError`` naming the first bad one: that is a mistake of the configuration, not of the registry.
    """
    found: List[Tuple[str, str, str]] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        url = urlsplit(part)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{part!r} is no URL of a registry: it must look like http://host:8888")
        if url.username or url.password or url.query or url.fragment or url.port == 0:
            raise ValueError(f"{part!r} is no URL of a registry: it has more than a host, a port and a path")
        entry = (url.scheme, url.netloc, url.path.rstrip("/"))
        if entry not in found:
            found.append(entry)
    if not found:
        raise ValueError("the list of registries is empty")
    return found


def _checked_token(token: Optional[str]) -> Optional[str]:
    if not token:
        return None
    if not all("!" <= character <= "~" for character in token):
        # The token itself appears in no message.
        raise ValueError("the registry token must consist of visible ASCII characters without spaces")
    return token


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    pieces = bytearray()
    while True:
        piece = response.read1(_PIECE)
        if not piece:
            return bytes(pieces)
        pieces += piece
        if len(pieces) > ANSWER_MAX:
            raise ValueError(f"the answer is longer than {ANSWER_MAX} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")


def _parsed(raw: bytes) -> Any:
    """The JSON. Raises ``ValueError`` for whatever is none, and for what is nested more deeply than Python can read."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _detail(raw: bytes) -> str:
    try:
        body = _parsed(raw)
        detail = body.get("detail") or ""
        fields = "; ".join(f"{error['field']} {error['message']}" for error in body.get("errors", []))
    except (ValueError, AttributeError, KeyError, TypeError):
        return ""
    text = f": {detail} ({fields})" if fields else f": {detail}" if detail else ""
    return "".join(character if character.isprintable() else " " for character in text[:_DETAIL_MAX])


def _index(text: Optional[str]) -> Optional[int]:
    return int(text) if text and len(text) <= 16 and text.isascii() and text.isdigit() else None
