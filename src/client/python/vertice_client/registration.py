"""Keeps a service registered, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import random
import signal
import threading
import time
import weakref
from typing import Any, Dict, Generator, Optional, Tuple

from .client import RegistryClient, request
from .transport import RegistryError

logger = logging.getLogger("vertice_client")

RETRY_MAX = 60.0
"""The longest pause before another try, in seconds."""

FAREWELL_MAX = 2.0
"""How long stopping may take, in seconds."""

TTL_MIN = 1.0
"""The shortest lease there is, in seconds."""

ENDED_PAUSE = 0.05
"""Time between two looks of those who wait for the end, in seconds."""


class Registration:
    """A service that is being kept registered; made by :func:`auto_register_service`.

    The thread registers, sends heartbeats, registers again whenever the registry has forgotten the service, and goes on
    trying for as long as the registry is away. A thread and not a task: a handler that keeps the event loop busy for a
    minute must not cost the service its registration.
    """

    def __init__(self, client: RegistryClient, description: Dict[str, Any]) -> None:
        self._client = client
        self._description = description
        self._condition = threading.Condition()
        self._stop = False
        self._farewell = False
        self._registered = False
        self._tried = False
        self._status: Optional[str] = None
        self._news = False
        self._thread = threading.Thread(target=self._run, name=f"registration {self.service_name}", daemon=True)

    @property
    def service_name(self) -> str:
        """The service."""
        return str(self._description["service_name"])

    @property
    def endpoint(self) -> str:
        """Where others reach it."""
        return str(self._description["endpoint"])

    @property
    def is_registered(self) -> bool:
        """Whether the registry knows the service, as far as we have heard. False: standalone mode."""
        return self._registered

    def set_status(self, status: str) -> None:
        """Says how the service is; the registry hears of it at once.

        ``starting``, ``healthy``, ``degraded``, ``unhealthy`` or ``draining``; only the second and the third take traffic.
        """
        with self._condition:
            self._status = status
            self._news = True
            self._condition.notify_all()

    def wait_registered(self, at_most: float) -> bool:
        """Waits until the registry knows the service, at most so many seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._registered or self._stop, at_most)
        return self._registered

    def stop_sync(self) -> None:
        """Takes the registration back and ends the thread: in 2 seconds at the latest."""
        self._end(farewell=True)
        self._thread.join(FAREWELL_MAX)

    async def stop(self) -> None:
        """:meth:`stop_sync`, beside the event loop."""
        await asyncio.get_running_loop().run_in_executor(None, self.stop_sync)

    def cancel(self, msg: Optional[Any] = None) -> bool:
        """Ends the heartbeats and leaves the registration to ``RegistryClient.deregister``: what services did with the
        task that the predecessor gave them."""
        was_running = not self.done()
        self._end(farewell=False)
        return was_running

    def done(self) -> bool:
        """Whether the end is wanted."""
        return self._stop

    cancelled = done

    def __await__(self) -> Generator[Any, None, None]:
        """Waits for the end, as one does with a cancelled task."""
        return self._ended().__await__()

    def __enter__(self) -> "Registration":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_sync()

    async def __aenter__(self) -> "Registration":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _ended(self) -> None:
        # Not with a thread that joins ours: whoever stops waiting would leave it behind, and the interpreter waits for the
        # threads of executors before it lets anybody take a registration back.
        while self._thread.is_alive():
            await asyncio.sleep(ENDED_PAUSE)

    # The work.

    def _begin(self, first_try: float) -> None:
        _active.add(self)
        self._thread.start()
        with self._condition:
            self._condition.wait_for(lambda: self._tried or self._stop, first_try)

    def _end(self, farewell: bool) -> None:
        with self._condition:
            if not self._stop:
                self._farewell = farewell
            self._stop = True
            self._condition.notify_all()
        _active.discard(self)

    def _run(self) -> None:
        failures = 0
        interval = self._client.heartbeat_interval
        while not self._stop:
            try:
                if self._registered:
                    self._heartbeat()
                else:
                    interval = self._register(interval)
                failures = 0
                pause = interval
            except RegistryError as error:
                if error.status == 404 and self._registered:
                    logger.warning("the registry does not know %s any more, registering again", self.service_name)
                    self._registered = False
                    continue
                failures += 1
                pause = backoff(failures)
                if self._registered:
                    pause = min(pause, interval)
                self._complain(error, failures, pause)
            finally:
                with self._condition:
                    self._tried = True
                    self._condition.notify_all()
            self._sleep(pause)
        if self._farewell:
            self._leave()

    def _register(self, interval: float) -> float:
        description = dict(self._description)
        if self._status is not None:
            description["status"] = self._status
        self._news = False
        answer = self._client.send_registration(description)
        with self._condition:
            self._registered = True
            self._condition.notify_all()
        logger.info("%s is registered: %s", self.service_name, self.endpoint)
        ttl = answer.body.get("ttl") if isinstance(answer.body, dict) else None
        # Three tries fit into a lease, however short it is; none is shorter than a second.
        third = max(ttl, TTL_MIN) / 3 if isinstance(ttl, (int, float)) and ttl > 0 else interval
        return min(self._client.heartbeat_interval, third)

    def _heartbeat(self) -> None:
        self._news = False
        self._client.send_heartbeat(self.service_name, self._status)

    def _leave(self) -> None:
        # Even when we never heard that it worked: the registry may have it.
        self._registered = False
        each = FAREWELL_MAX * 0.75 / len(self._client.transport.urls)
        try:
            self._client.send_farewell(self.service_name, timeout=each)
            logger.info("%s is deregistered", self.service_name)
        except RegistryError as error:
            logger.warning("failed to deregister %s, its lease will lapse by itself: %s", self.service_name, error)

    def _sleep(self, pause: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._stop or (self._news and self._registered), pause)

    def _complain(self, error: RegistryError, failures: int, pause: float) -> None:
        what = "renew" if self._registered else "register"
        logger.warning("failed to %s %s, next try in %.1f s: %s", what, self.service_name, pause, error)
        if failures == 1 and error.status is None and not self._registered:
            logger.warning("%s works without the registry until then (standalone mode)", self.service_name)


async def auto_register_service(
    service_name: str,
    port: Optional[int] = None,
    health_endpoint: str = "/health",
    metadata: Optional[Dict[str, str]] = None,
    *,
    client: Optional[RegistryClient] = None,
    handle_sigterm: bool = True,
    **more: Any,
) -> Registration:
    """Registers a service and keeps it registered.

    Waits for the first try, whatever comes of it. See :func:`vertice_client.client.request` for ``more``. The
    registration is taken back by ``await handle.stop()``, at the end of ``async with handle``, when the interpreter ends,
    and at SIGTERM where nobody else handles it.
    """
    handle, first_try = _start(service_name, port, health_endpoint, metadata, client, handle_sigterm, more)
    await asyncio.get_running_loop().run_in_executor(None, handle._begin, first_try)
    return handle


def auto_register_service_sync(
    service_name: str,
    port: Optional[int] = None,
    health_endpoint: str = "/health",
    metadata: Optional[Dict[str, str]] = None,
    *,
    client: Optional[RegistryClient] = None,
    handle_sigterm: bool = True,
    **more: Any,
) -> Registration:
    """:func:`auto_register_service` for programs without an event loop."""
    handle, first_try = _start(service_name, port, health_endpoint, metadata, client, handle_sigterm, more)
    handle._begin(first_try)
    return handle


def _start(
    service_name: str,
    port: Optional[int],
    health_endpoint: str,
    metadata: Optional[Dict[str, str]],
    client: Optional[RegistryClient],
    handle_sigterm: bool,
    more: Dict[str, Any],
) -> Tuple[Registration, float]:
    client = client or RegistryClient.default()
    description = request(service_name, port, health_endpoint, metadata, **more)
    if handle_sigterm:
        _take_sigterm()
    return Registration(client, description), client.transport.timeout


async def keep_alive(client: RegistryClient, service_name: str) -> None:
    """Heartbeats for a service that was registered by a single call, until it is cancelled."""
    failures = 0
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(backoff(failures), client.heartbeat_interval) if failures else client.heartbeat_interval)
        try:
            await loop.run_in_executor(None, client.send_heartbeat, service_name)
            failures = 0
        except RegistryError as error:
            description = client.remembered(service_name)
            if error.status == 404 and description is not None:
                logger.warning("the registry does not know %s any more, registering again", service_name)
                try:
                    await loop.run_in_executor(None, client.send_registration, description)
                    failures = 0
                    continue
                except RegistryError as refusal:
                    error = refusal
            failures += 1
            logger.warning("failed to renew %s: %s", service_name, error)


def backoff(failures: int) -> float:
    """The pause after so many failures in a row: 1→2→4→…→60 s, the upper half of each drawn at random."""
    full = min(RETRY_MAX, 2.0 ** min(max(failures, 1) - 1, 16))
    return full * random.uniform(0.5, 1.0)


_active: "weakref.WeakSet[Registration]" = weakref.WeakSet()


def _stop_all() -> None:
    """All at the same time: the farewells share the 2 seconds."""
    deadline = time.monotonic() + FAREWELL_MAX
    handles = list(_active)
    for handle in handles:
        handle._end(farewell=True)
    for handle in handles:
        handle._thread.join(max(0.0, deadline - time.monotonic()))


def _take_sigterm() -> None:
    """SIGTERM ends a Python program without any clean-up unless somebody handles it; servers usually do."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def end(number: int, _frame: object) -> None:
        _stop_all()
        # And then what would have happened anyway.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


atexit.register(_stop_all)
