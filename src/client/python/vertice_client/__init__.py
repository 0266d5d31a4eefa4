"""Registers a service at the Vértice Gateway, keeps it registered, and finds other services.

The names are those of the predecessor's client library, so a service only changes its import::

    from vertice_client import RegistryClient, auto_register_service

Nothing here needs more than the standard library, and no call raises because the registry is away.
"""

from .client import RegistryClient
from .discovery import Discovery, NotRegistered, Unreachable
from .registration import Registration, auto_register_service, auto_register_service_sync
from .transport import RegistryError

__all__ = [
    "Discovery",
    "NotRegistered",
    "Registration",
    "RegistryClient",
    "RegistryError",
    "Unreachable",
    "auto_register_service",
    "auto_register_service_sync",
]
