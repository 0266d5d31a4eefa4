"""Single calls of the registry."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import socket
import threading
from typing import Any, Callable, ClassVar, Dict, Generic, Iterable, List, Optional, TypeVar
from urllib.parse import quote

from .transport import Answer, RegistryError, Transport

logger = logging.getLogger("vertice_client")

DEFAULT_REGISTRY_URL = "http://vertice-register:8888"
REMEMBERED_MAX = 1000
"""How many registrations one client remembers; the oldest is forgotten first."""


T = TypeVar("T")


class _OnClassToo(Generic[T]):
    """A method that, called on the class, is called on its default object: ``await RegistryClient.register(…)``."""

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __get__(self, instance: Optional["RegistryClient"], owner: type) -> Callable[..., T]:
        target = instance if instance is not None else owner.default()  # type: ignore[attr-defined]
        return functools.partial(self._function, target)


class RegistryClient:
    """A client of one or more registries.

    Methods come in pairs: ``await client.register(…)`` and ``client.register_sync(…)``. None of them raises because the
    registry is away: they log it and answer ``False``, ``None`` or ``[]``. All can be called on the class as well; that
    uses the client described by the environment:

    ``VERTICE_REGISTRY_URL`` or ``REGISTRY_URL``
        The registries, separated by commas; the next one is asked when one does not answer.
    ``VERTICE_REGISTRY_TOKEN`` or ``REGISTRY_AUTH_TOKEN``
        The token they want.
    ``REGISTRY_HEARTBEAT_INTERVAL`` (30) and ``REGISTRY_TIMEOUT`` (5)
        In seconds.
    ``SERVICE_HOST``
        The host under which others reach this service; the machine's name by default.
    """

    _default: ClassVar[Optional["RegistryClient"]] = None
    _default_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        registry_url: Optional[str] = None,
        *,
        token: Optional[str] = None,
        heartbeat_interval: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> None:
        """What is not given comes from the environment. Raises ``ValueError`` for what cannot be used."""
        url = registry_url or _environment("VERTICE_REGISTRY_URL", "REGISTRY_URL") or DEFAULT_REGISTRY_URL
        token = token or _environment("VERTICE_REGISTRY_TOKEN", "REGISTRY_AUTH_TOKEN")
        self.heartbeat_interval = _seconds("REGISTRY_HEARTBEAT_INTERVAL", heartbeat_interval, 30.0)
        self.transport = Transport(url, token, _seconds("REGISTRY_TIMEOUT", timeout, 5.0))
        self._requests: Dict[str, Dict[str, Any]] = {}
        self._lock = threading.Lock()

    @classmethod
    def default(cls) -> "RegistryClient":
        """The client described by the environment; made once."""
        with RegistryClient._default_lock:
            if RegistryClient._default is None:
                RegistryClient._default = RegistryClient()
            return RegistryClient._default

    @classmethod
    async def close(cls) -> None:
        """Forgets the default client: the environment is read again at the next call."""
        with RegistryClient._default_lock:
            RegistryClient._default = None

    @_OnClassToo
    def register_sync(
        self,
        service_name: str,
        port: Optional[int] = None,
        health_endpoint: str = "/health",
        metadata: Optional[Dict[str, str]] = None,
        **more: Any,
    ) -> bool:
        """Registers a service once, without heartbeats; see :func:`request` for ``more``. True when that worked."""
        description = request(service_name, port, health_endpoint, metadata, **more)
        return self._attempt(f"register {service_name}", lambda: self.send_registration(description)) is not None

    @_OnClassToo
    def heartbeat_sync(self, service_name: str, status: Optional[str] = None) -> bool:
        """Renews a registration. True when that worked; False also when the registry does not know it any more."""
        return self._attempt(f"renew {service_name}", lambda: self.send_heartbeat(service_name, status)) is not None

    @_OnClassToo
    def deregister_sync(self, service_name: str) -> bool:
        """Takes a registration back. True when that worked, also when there was none."""
        return self._attempt(f"deregister {service_name}", lambda: self.send_farewell(service_name)) is not None

    @_OnClassToo
    def get_service_sync(self, service_name: str) -> Optional[Dict[str, Any]]:
        """What the registry says of a service, or None. :class:`Discovery` tells "none" from "registry away"."""
        answer = self._attempt(f"look up {service_name}", lambda: self.ask_service(service_name))
        return answer.body if answer is not None and isinstance(answer.body, dict) else None

    @_OnClassToo
    def list_services_sync(self) -> List[str]:
        """The names of all services, sorted."""
        answer = self._attempt("list the services", lambda: self.transport.call("GET", "/services"))
        return answer.body if answer is not None and isinstance(answer.body, list) else []

    @_OnClassToo
    async def register(self, *arguments: Any, **more: Any) -> bool:
        """:meth:`register_sync`, beside the event loop."""
        return await _beside(self.register_sync, *arguments, **more)

    @_OnClassToo
    async def heartbeat(self, service_name: str, status: Optional[str] = None) -> bool:
        """:meth:`heartbeat_sync`, beside the event loop."""
        return await _beside(self.heartbeat_sync, service_name, status)

    @_OnClassToo
    async def heartbeat_loop(self, service_name: str) -> None:
        """Renews a registration until it is cancelled, and registers again whenever the registry has forgotten it."""
        from .registration import keep_alive

        await keep_alive(self, service_name)

    @_OnClassToo
    async def deregister(self, service_name: str) -> bool:
        """:meth:`deregister_sync`, beside the event loop."""
        return await _beside(self.deregister_sync, service_name)

    @_OnClassToo
    async def get_service(self, service_name: str) -> Optional[Dict[str, Any]]:
        """:meth:`get_service_sync`, beside the event loop."""
        return await _beside(self.get_service_sync, service_name)

    @_OnClassToo
    async def list_services(self) -> List[str]:
        """:meth:`list_services_sync`, beside the event loop."""
        return await _beside(self.list_services_sync)

    # The calls themselves: these raise RegistryError.

    def send_registration(self, description: Dict[str, Any], timeout: Optional[float] = None) -> Answer:
        """Registers what :func:`request` has made. Remembers it: heartbeats and the farewell name the same instance."""
        with self._lock:
            name = description["service_name"]
            self._requests.pop(name, None)
            while len(self._requests) >= REMEMBERED_MAX:
                del self._requests[next(iter(self._requests))]
            self._requests[name] = description
        return self.transport.call("POST", "/register", description, timeout)

    def send_heartbeat(self, service_name: str, status: Optional[str] = None) -> Answer:
        """Renews a registration. A :class:`RegistryError` with status 404 means: register again."""
        body: Dict[str, Any] = {"service_name": service_name}
        remembered = self.remembered(service_name)
        if remembered is not None:
            body["instance_id"] = remembered["instance_id"]
        if status is not None:
            body["status"] = status
        return self.transport.call("POST", "/heartbeat", body)

    def send_farewell(self, service_name: str, timeout: Optional[float] = None) -> Answer:
        """Takes a registration back."""
        path = f"/deregister/{quote(service_name, safe='')}"
        remembered = self.remembered(service_name)
        if remembered is not None:
            path += f"?instance_id={quote(remembered['instance_id'], safe=':')}"
        answer = self.transport.call("DELETE", path, timeout=timeout)
        with self._lock:
            self._requests.pop(service_name, None)
        return answer

    def ask_service(self, service_name: str, query: str = "", timeout: Optional[float] = None) -> Answer:
        """What the registry says of a service. Status 404 of the :class:`RegistryError` means: nothing."""
        return self.transport.call("GET", f"/services/{quote(service_name, safe='')}{query}", timeout=timeout)

    def remembered(self, service_name: str) -> Optional[Dict[str, Any]]:
        """What was registered through this client under that name."""
        with self._lock:
            return self._requests.get(service_name)

    @staticmethod
    def _attempt(what: str, call: Callable[[], Answer]) -> Optional[Answer]:
        try:
            return call()
        except RegistryError as error:
            level = logging.DEBUG if error.status == 404 else logging.WARNING
            logger.log(level, "failed to %s: %s", what, error)
            return None


def request(
    service_name: str,
    port: Optional[int] = None,
    health_endpoint: str = "/health",
    metadata: Optional[Dict[str, str]] = None,
    *,
    endpoint: Optional[str] = None,
    host: Optional[str] = None,
    instance_id: Optional[str] = None,
    version: Optional[str] = None,
    zone: Optional[str] = None,
    tags: Iterable[str] = (),
    ttl: Optional[int] = None,
    weight: Optional[int] = None,
    status: Optional[str] = None,
) -> Dict[str, Any]:
    """The body of a registration.

    The endpoint is ``endpoint``, or ``http://host:port``; ``host`` defaults to ``SERVICE_HOST``, and that to the
    machine's name. The identity is ``host:port`` of the endpoint unless ``instance_id`` says something else.
    """
    if endpoint is None:
        if port is None:
            raise ValueError("either port or endpoint must be given")
        endpoint = f"http://{host or _environment('SERVICE_HOST') or socket.gethostname()}:{port}"
    body: Dict[str, Any] = {
        "service_name": service_name,
        "endpoint": endpoint,
        "health_endpoint": health_endpoint,
        "metadata": {key: str(value) for key, value in (metadata or {}).items()},
        "instance_id": instance_id or _authority(endpoint),
    }
    optional = {"version": version, "zone": zone, "ttl": ttl, "weight": weight, "status": status}
    body.update({key: value for key, value in optional.items() if value is not None})
    if version is None and "version" in body["metadata"]:
        body["version"] = body["metadata"]["version"]
    if tags:
        body["tags"] = list(tags)
    # What cannot be sent is a mistake of the caller: better here than in a thread.
    json.dumps(body)
    return body


async def _beside(call: Callable[..., T], *arguments: Any, **more: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *arguments, **more))


def _authority(endpoint: str) -> str:
    scheme, _, rest = endpoint.partition("://")
    authority = rest.split("/", 1)[0]
    if ":" in authority.rsplit("]", 1)[-1]:
        return authority
    return f"{authority}:{443 if scheme == 'https' else 80}"


def _environment(*names: str) -> Optional[str]:
    return next((value for value in map(os.environ.get, names) if value), None)


def _seconds(variable: str, given: Optional[float], usual: float) -> float:
    text = os.environ.get(variable)
    if given is not None:
        value = float(given)
    elif text:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{variable} must be a number of seconds, not {text!r}") from None
    else:
        value = usual
    if not 0.01 <= value <= 86_400:
        raise ValueError(f"{variable} must be between 0.01 and 86400 seconds, not {value}")
    return value
