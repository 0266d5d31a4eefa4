from __future__ import annotations

import asyncio
import os
import unittest
from typing import Any, Dict
from unittest import mock

from vertice_client import Discovery, NotRegistered, RegistryClient, Unreachable

from .fake import FakeRegistry, eventually, free_port


def service(endpoint: str, **more: Any) -> Dict[str, Any]:
    return {"service_name": "nmap_service", "endpoint": endpoint, "metadata": {}, **more}


class Discovering(unittest.TestCase):
    def setUp(self) -> None:
        self.registry = FakeRegistry()
        self.addCleanup(self.registry.close)

    def discovery(self, url: str) -> Discovery:
        discovery = Discovery(RegistryClient(url, timeout=2))
        self.addCleanup(discovery.close)
        return discovery

    def test_asks_once_and_then_hears_of_changes(self) -> None:
        self.registry.set("nmap_service", service("http://a:1"))
        discovery = self.discovery(self.registry.url)
        self.assertEqual(discovery.endpoint("nmap_service"), "http://a:1")
        self.registry.wait_line("GET /services/nmap_service?watch=")
        for _ in range(100):
            self.assertEqual(discovery.endpoint("nmap_service"), "http://a:1")
        self.assertEqual(self.registry.lines().count("GET /services/nmap_service"), 1)
        self.registry.set("nmap_service", service("http://b:1"))
        eventually(lambda: discovery.endpoint("nmap_service") == "http://b:1")
        self.registry.set("nmap_service", None)

        def is_gone() -> bool:
            try:
                discovery.service("nmap_service")
            except NotRegistered:
                return True
            return False

        eventually(is_gone)
        # A service that is absent is waited for as well.
        self.registry.set("nmap_service", service("http://c:1"))
        eventually(lambda: not is_gone())

    def test_instances_take_turns(self) -> None:
        instances = [
            {"endpoint": "http://a:1", "status": "healthy", "weight": 100},
            {"endpoint": "http://b:1", "status": "draining", "weight": 100},
            {"endpoint": "http://c:1", "status": "degraded", "weight": 100},
            {"endpoint": "http://d:1", "status": "healthy", "weight": 0},
        ]
        self.registry.set("nmap_service", service("http://a:1", instances=instances))
        discovery = self.discovery(self.registry.url)
        picks = [discovery.endpoint("nmap_service") for _ in range(10)]
        self.assertEqual((picks.count("http://a:1"), picks.count("http://c:1")), (5, 5))
        self.registry.set("busy_service", service("http://b:1", instances=instances[1:2]))
        with self.assertRaisesRegex(NotRegistered, "no instance of busy_service"):
            discovery.endpoint("busy_service")

    def test_unknown_is_not_unreachable(self) -> None:
        with self.assertRaises(NotRegistered):
            self.discovery(self.registry.url).service("nmap_service")
        away = self.discovery(f"http://127.0.0.1:{free_port()}")
        with self.assertRaisesRegex(Unreachable, "failed to learn where nmap_service is: failed to reach"):
            away.service("nmap_service")
        self.assertIsNone(away.age("nmap_service"))
        with mock.patch.dict(os.environ, {"NMAP_SERVICE_URL": "http://10.0.0.7:8047/"}):
            self.assertEqual(away.endpoint("nmap_service"), "http://10.0.0.7:8047")

    def test_stale_beats_nothing(self) -> None:
        self.registry.set("nmap_service", service("http://a:1"))
        discovery = self.discovery(self.registry.url)
        self.assertEqual(discovery.endpoint("nmap_service"), "http://a:1")
        self.registry.wait_line("GET /services/nmap_service?watch=")
        self.registry.close()
        before = discovery.age("nmap_service")
        eventually(lambda: discovery.age("nmap_service") > before + 0.2)
        self.assertEqual(discovery.endpoint("nmap_service"), "http://a:1")

    def test_the_predecessor_is_polled(self) -> None:
        old = FakeRegistry(watch=False)
        self.addCleanup(old.close)
        old.set("nmap_service", service("http://a:1"))
        with mock.patch("vertice_client.discovery.POLL_INTERVAL", 0.02):
            discovery = self.discovery(old.url)
            self.assertEqual(discovery.endpoint("nmap_service"), "http://a:1")
            old.set("nmap_service", service("http://b:1"))
            eventually(lambda: discovery.endpoint("nmap_service") == "http://b:1")
        self.assertFalse(any("watch=" in line for line in old.lines()))

    def test_an_event_loop(self) -> None:
        self.registry.set("nmap_service", service("http://a:1"))
        discovery = self.discovery(self.registry.url)

        async def story() -> None:
            self.assertEqual((await discovery.lookup("nmap_service"))["endpoint"], "http://a:1")
            self.assertEqual(await discovery.pick("nmap_service"), "http://a:1")

        asyncio.run(story())
