"""Against the real gateway, whose path is in ``VERTICE_GATEWAY``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from vertice_client import Discovery, NotRegistered, RegistryClient, auto_register_service_sync

from .fake import PATIENCE, eventually

GATEWAY = os.environ.get("VERTICE_GATEWAY")


class TheRealGateway(unittest.TestCase):
    def setUp(self) -> None:
        if not GATEWAY:
            print("\n*** SKIPPED: the tests against the real gateway; VERTICE_GATEWAY must name the program", file=sys.stderr)
            self.skipTest("VERTICE_GATEWAY is not set")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.url = ""
        self.addCleanup(self.end)
        self.start("127.0.0.1:0")

    def start(self, registry: str) -> None:
        ports = self.directory / "ports.json"
        ports.unlink(missing_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "VERTICE_GATEWAY__LISTEN": "127.0.0.1:0",
            "VERTICE_REGISTRY__LISTEN": registry,
            "VERTICE_STORE__KIND": "memory",
            "VERTICE_SERVER__PORT_FILE": str(ports),
        }
        log = (self.directory / "log").open("ab")
        self.addCleanup(log.close)
        self.process = subprocess.Popen(
            [str(Path(str(GATEWAY)).resolve()), "run"], env=environment, cwd=self.directory, stdout=log, stderr=log
        )
        address = json.loads(eventually(lambda: ports.exists() and ports.read_text()))["registry"][0]
        self.url = f"http://{address}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def test_a_service_comes_is_found_and_goes(self) -> None:
        client = RegistryClient(self.url, heartbeat_interval=0.2)
        discovery = Discovery(client)
        self.addCleanup(discovery.close)
        with self.assertRaises(NotRegistered):
            discovery.endpoint("osint_service")
        handle = auto_register_service_sync("osint_service", 8049, metadata={"team": "red"}, client=client, host="127.0.0.9")
        self.assertTrue(handle.is_registered)
        self.assertEqual(client.list_services_sync(), ["osint_service"])

        def found() -> Any:
            try:
                return discovery.service("osint_service")
            except NotRegistered:
                return None

        service = eventually(found)
        self.assertEqual(service["endpoint"], "http://127.0.0.9:8049")
        self.assertEqual(service["metadata"], {"team": "red"})
        self.assertEqual(service["instances"][0]["instance_id"], "127.0.0.9:8049")
        first = client.get_service_sync("osint_service")["last_heartbeat"]
        eventually(lambda: client.get_service_sync("osint_service")["last_heartbeat"] > first)
        handle.set_status("draining")
        eventually(lambda: client.get_service_sync("osint_service")["instances"][0]["status"] == "draining")
        handle.stop_sync()
        self.assertEqual(client.list_services_sync(), [])
        eventually(lambda: not found())

    def test_a_gateway_that_forgot_is_told_again(self) -> None:
        client = RegistryClient(self.url, heartbeat_interval=0.2, timeout=2)
        with auto_register_service_sync("osint_service", 8049, client=client, host="127.0.0.9"):
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.start(self.url[len("http://"):])
            eventually(lambda: client.list_services_sync() == ["osint_service"])
