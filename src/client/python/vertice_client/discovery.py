"""Where services are: asked for once, kept in memory, and kept right by a watch."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from .client import RegistryClient
from .registration import backoff
from .transport import Answer, RegistryError

logger = logging.getLogger("vertice_client")

WAIT = 30.0
"""How long the registry may hold a watch, in seconds."""

POLL_INTERVAL = 10.0
"""Time between two questions where the registry cannot be watched, in seconds."""

ASK_PAUSE = 0.05
"""Time between an answer and the next question even where things change all the time, in seconds."""

RETRY_MAX = 30.0


class NotRegistered(LookupError):
    """The registry was asked, and there is no such service."""


class Unreachable(ConnectionError):
    """No registry could be asked, and none ever said anything of this service: it may well exist."""


class Discovery:
    """Knows where services are.

    The first question for a service waits for the registry (``patience`` seconds at most); all others are answered from
    memory. One thread per service that was asked for follows it with long polls. When the registry is away, what was ever
    heard stays in use: :meth:`age` tells how old it is. What the registry does not know, or cannot be asked for, is looked
    for in the environment: ``NMAP_SERVICE_URL``, ``NMAP_SERVICE_SERVICE_URL``, ``NMAP_SERVICE_ENDPOINT``.
    """

    def __init__(
        self,
        client: Optional[RegistryClient] = None,
        *,
        patience: float = 5.0,
        services_max: int = 100,
        fallback: Optional[Callable[[str], Optional[str]]] = None,
    ) -> None:
        self._client = client or RegistryClient.default()
        self._patience = patience
        self._services_max = services_max
        self._fallback = fallback if fallback is not None else from_environment
        self._followers: Dict[str, _Follower] = {}
        self._lock = threading.Lock()

    def service(self, name: str) -> Dict[str, Any]:
        """What the registry says of a service. Raises :class:`NotRegistered` or :class:`Unreachable`."""
        follower = self._follower(name)
        follower.wait_known(self._patience)
        service, failure = follower.known()
        if service is not None:
            return service
        url = self._fallback(name)
        if url:
            return {"service_name": name, "endpoint": url.rstrip("/"), "instances": [], "metadata": {}}
        if failure is None:
            raise NotRegistered(f"no service {name} is registered")
        raise Unreachable(f"failed to learn where {name} is: {failure}")

    def endpoint(self, name: str) -> str:
        """The URL of the next instance that takes traffic; they take turns. Raises as :meth:`service`, and
        :class:`NotRegistered` when no instance takes traffic."""
        service = self.service(name)
        instances: List[Dict[str, Any]] = service.get("instances") or []
        if not instances:
            return str(service["endpoint"])
        usable = [i for i in instances if i.get("status") in ("healthy", "degraded") and i.get("weight", 100) > 0]
        if not usable:
            raise NotRegistered(f"no instance of {name} takes traffic")
        return str(usable[self._follower(name).turn() % len(usable)]["endpoint"])

    def age(self, name: str) -> Optional[float]:
        """How many seconds ago what is known of a service was last known to be true. None: nothing is known."""
        with self._lock:
            follower = self._followers.get(name)
        return follower.age() if follower is not None else None

    async def lookup(self, name: str) -> Dict[str, Any]:
        """:meth:`service`, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(None, functools.partial(self.service, name))

    async def pick(self, name: str) -> str:
        """:meth:`endpoint`, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(None, functools.partial(self.endpoint, name))

    def close(self) -> None:
        """Ends all threads (each at the end of what it is waiting for)."""
        with self._lock:
            followers, self._followers = list(self._followers.values()), {}
        for follower in followers:
            follower.stop()

    def _follower(self, name: str) -> "_Follower":
        with self._lock:
            follower = self._followers.pop(name, None)
            if follower is None:
                while len(self._followers) >= self._services_max:
                    # The one that was not asked for longest.
                    self._followers.pop(next(iter(self._followers))).stop()
                follower = _Follower(self._client, name)
            self._followers[name] = follower
            return follower


class _Follower:
    """What is known of one service, and the thread that keeps it right."""

    def __init__(self, client: RegistryClient, name: str) -> None:
        self._client = client
        self._name = name
        self._condition = threading.Condition()
        self._stop = False
        self._answered = False
        self._service: Optional[Dict[str, Any]] = None
        self._failure: Optional[str] = None
        self._confirmed: Optional[float] = None
        self._turns = itertools.count()
        threading.Thread(target=self._run, name=f"discovery {name}", daemon=True).start()

    def wait_known(self, at_most: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._answered or self._failure is not None, at_most)

    def known(self) -> "tuple[Optional[Dict[str, Any]], Optional[str]]":
        with self._condition:
            # Once there was an answer, a failure only means that it grows old.
            return self._service, None if self._answered else self._failure or "no answer yet"

    def age(self) -> Optional[float]:
        return None if self._confirmed is None else time.monotonic() - self._confirmed

    def turn(self) -> int:
        return next(self._turns)

    def stop(self) -> None:
        with self._condition:
            self._stop = True
            self._condition.notify_all()

    def _run(self) -> None:
        index: Optional[int] = None
        failures = 0
        while not self._stop:
            asked = time.monotonic()
            try:
                answer = self._ask(index)
            except RegistryError as error:
                failures += 1
                index = None
                pause = min(backoff(failures), RETRY_MAX)
                self._tell(failure=str(error))
            else:
                failures = 0
                watched = index is not None and answer.index == index
                index = answer.index
                self._tell(answer=answer)
                if index is None:
                    pause = POLL_INTERVAL
                elif watched and time.monotonic() - asked < WAIT / 2:
                    # It did not wait as it should: do not ask it all the time.
                    pause = 1.0
                else:
                    pause = ASK_PAUSE
            with self._condition:
                self._condition.wait_for(lambda: self._stop, pause)

    def _ask(self, index: Optional[int]) -> Answer:
        """An absent service is an answer like any other."""
        query = "" if index is None else f"?watch={index}&wait={WAIT:.0f}s"
        timeout = None if index is None else WAIT + 10.0
        try:
            return self._client.ask_service(self._name, query, timeout)
        except RegistryError as error:
            if error.status == 404:
                return Answer(None, error.index)
            raise

    def _tell(self, answer: Optional[Answer] = None, failure: Optional[str] = None) -> None:
        with self._condition:
            self._failure = failure
            if answer is not None:
                self._service = answer.body if isinstance(answer.body, dict) else None
                self._answered = True
                self._confirmed = time.monotonic()
            self._condition.notify_all()


def from_environment(name: str) -> Optional[str]:
    """Where a service is, according to the environment."""
    stem = name.upper().replace("-", "_")
    values = (os.environ.get(stem + suffix) for suffix in ("_URL", "_SERVICE_URL", "_ENDPOINT"))
    return next((value for value in values if value and value.startswith(("http://", "https://"))), None)
