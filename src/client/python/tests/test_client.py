from __future__ import annotations

import asyncio
import os
import unittest
from unittest import mock

from vertice_client import RegistryClient
from vertice_client.transport import parse_urls

from .fake import FakeRegistry, free_port


class SingleCalls(unittest.TestCase):
    def setUp(self) -> None:
        self.registry = FakeRegistry()
        self.addCleanup(self.registry.close)
        self.client = RegistryClient(self.registry.url, token="t0ken")

    def test_register_heartbeat_look_up_list_deregister(self) -> None:
        self.assertTrue(
            self.client.register_sync("osint_service", 8049, "/healthz", {"version": "1.0.0"}, host="osint", tags=["red"])
        )
        request = self.registry.wait_line("POST /register")
        self.assertEqual(
            request["body"],
            {
                "service_name": "osint_service",
                "endpoint": "http://osint:8049",
                "health_endpoint": "/healthz",
                "metadata": {"version": "1.0.0"},
                "instance_id": "osint:8049",
                "version": "1.0.0",
                "tags": ["red"],
            },
        )
        self.assertEqual(request["headers"]["X-Registry-Token"], "t0ken")
        self.assertTrue(self.client.heartbeat_sync("osint_service", "degraded"))
        self.assertEqual(
            self.registry.wait_line("POST /heartbeat")["body"],
            {"service_name": "osint_service", "instance_id": "osint:8049", "status": "degraded"},
        )
        self.assertEqual(self.client.get_service_sync("osint_service")["endpoint"], "http://osint:8049")
        self.assertEqual(self.client.list_services_sync(), ["osint_service"])
        self.assertTrue(self.client.deregister_sync("osint_service"))
        self.assertEqual(self.registry.lines()[-1], "DELETE /deregister/osint_service?instance_id=osint:8049")
        self.assertFalse(self.client.heartbeat_sync("osint_service"))
        self.assertIsNone(self.client.get_service_sync("osint_service"))

    def test_the_same_with_await(self) -> None:
        async def story() -> None:
            client = self.client
            self.assertTrue(await client.register("osint_service", port=8049, metadata={"a": "b"}, host="osint"))
            self.assertTrue(await client.heartbeat("osint_service"))
            self.assertEqual((await client.get_service("osint_service"))["metadata"], {"a": "b"})
            self.assertEqual(await client.list_services(), ["osint_service"])
            self.assertTrue(await client.deregister("osint_service"))
            self.assertEqual(await client.list_services(), [])

        asyncio.run(story())

    def test_the_predecessors_way_is_on_the_class_with_the_environment(self) -> None:
        environment = {"VERTICE_REGISTRY_URL": self.registry.url, "REGISTRY_AUTH_TOKEN": "env-token", "SERVICE_HOST": "me"}

        async def story() -> None:
            await RegistryClient.close()
            try:
                self.assertTrue(await RegistryClient.register(service_name="osint_service", port=8049))
                loop = asyncio.ensure_future(RegistryClient.heartbeat_loop("osint_service"))
                await asyncio.get_running_loop().run_in_executor(None, self.registry.wait_line, "POST /heartbeat", 2)
                self.registry.set("osint_service", None)
                await asyncio.get_running_loop().run_in_executor(None, self.registry.wait_line, "POST /register", 2)
                loop.cancel()
                self.assertTrue(await RegistryClient.deregister("osint_service"))
            finally:
                await RegistryClient.close()

        with mock.patch.dict(os.environ, {**environment, "REGISTRY_HEARTBEAT_INTERVAL": "0.05"}):
            asyncio.run(story())
        request = self.registry.wait_line("POST /register")
        self.assertEqual(request["body"]["endpoint"], "http://me:8049")
        self.assertEqual(request["headers"]["X-Registry-Token"], "env-token")

    def test_a_registry_that_is_away_raises_nothing(self) -> None:
        client = RegistryClient(f"http://127.0.0.1:{free_port()}", timeout=1)
        with self.assertLogs("vertice_client", "WARNING") as logs:
            self.assertFalse(client.register_sync("osint_service", 8049))
            self.assertFalse(client.heartbeat_sync("osint_service"))
            self.assertFalse(client.deregister_sync("osint_service"))
            self.assertIsNone(client.get_service_sync("osint_service"))
            self.assertEqual(client.list_services_sync(), [])
        self.assertIn("failed to reach the registry at http://127.0.0.1", logs.output[0])

    def test_an_answer_that_cannot_be_read_raises_nothing(self) -> None:
        for raw in (b"", b"{", b"\xff", b"[" * 100_000, b'{"ttl":' * 100_000):
            for status in (None, 503):
                self.registry.raw, self.registry.refuse = raw, status
                self.assertFalse(self.client.register_sync("osint_service", 8049))
                self.assertIsNone(self.client.get_service_sync("osint_service"))
                self.assertEqual(self.client.list_services_sync(), [])

    def test_one_good_registry_is_enough(self) -> None:
        broken = FakeRegistry()
        self.addCleanup(broken.close)
        broken.refuse = 503
        client = RegistryClient(f"http://127.0.0.1:{free_port()}, {broken.url}, {self.registry.url}")
        self.assertTrue(client.register_sync("osint_service", 8049))
        self.assertTrue(client.heartbeat_sync("osint_service"))
        self.assertEqual(len(broken.lines()), 1, "the one that answered is kept")
        # An answer is an answer: nobody else is asked.
        self.registry.refuse = 422
        self.assertFalse(client.register_sync("osint_service", 8049))
        self.assertEqual(len(broken.lines()), 1)

    def test_what_cannot_be_used_is_named(self) -> None:
        for bad in ("registry:8888", "ftp://a", "http://u:p@a", " , ", "http://a?b"):
            with self.assertRaises(ValueError, msg=bad):
                RegistryClient(bad)
        with self.assertRaises(ValueError) as caught:
            RegistryClient("http://a", token="s3cret\r\nX: y")
        self.assertNotIn("s3cret", str(caught.exception))
        with mock.patch.dict(os.environ, {"REGISTRY_HEARTBEAT_INTERVAL": "often"}):
            with self.assertRaisesRegex(ValueError, "REGISTRY_HEARTBEAT_INTERVAL"):
                RegistryClient("http://a")
        with self.assertRaises(ValueError):
            self.client.register_sync("osint_service")
        with self.assertRaises(TypeError):
            self.client.register_sync("osint_service", 8049, ttl=object())
        self.assertEqual(parse_urls("http://a:1/, http://a:1,https://[::1]/x/"), [("http", "a:1", ""), ("https", "[::1]", "/x")])
