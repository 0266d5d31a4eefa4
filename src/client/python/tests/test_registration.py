from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from vertice_client import RegistryClient, auto_register_service, auto_register_service_sync
from vertice_client.registration import backoff

from .fake import PATIENCE, FakeRegistry, eventually, free_port

PACKAGE = Path(__file__).resolve().parent.parent


class KeptRegistered(unittest.TestCase):
    def setUp(self) -> None:
        self.registry = FakeRegistry()
        self.addCleanup(self.registry.close)
        self.client = RegistryClient(self.registry.url, heartbeat_interval=0.05, timeout=2)

    def test_registers_beats_and_takes_back(self) -> None:
        with auto_register_service_sync("osint_service", 8049, metadata={"team": "red"}, client=self.client) as handle:
            self.assertTrue(handle.is_registered, "the first try is waited for")
            self.registry.wait_line("POST /heartbeat", 3)
            handle.set_status("draining")
            self.registry.wait_for(lambda request: (request["body"] or {}).get("status") == "draining")
        self.assertTrue(self.registry.lines()[-1].startswith("DELETE /deregister/osint_service?instance_id="))
        self.assertEqual(self.registry.lines().count("POST /register"), 1)

    def test_a_new_status_is_told_at_once(self) -> None:
        client = RegistryClient(self.registry.url, heartbeat_interval=3600)
        with auto_register_service_sync("osint_service", 8049, client=client) as handle:
            handle.set_status("unhealthy")
            self.registry.wait_line("POST /heartbeat")

    def test_registers_again_when_forgotten(self) -> None:
        with auto_register_service_sync("osint_service", 8049, client=self.client):
            self.registry.wait_line("POST /heartbeat")
            self.registry.set("osint_service", None)
            self.registry.wait_line("POST /register", 2)

    def test_an_event_loop(self) -> None:
        async def story() -> None:
            async with await auto_register_service("osint_service", 8049, client=self.client) as handle:
                self.assertTrue(handle.is_registered)
                await asyncio.get_running_loop().run_in_executor(None, self.registry.wait_line, "POST /heartbeat", 2)
            self.assertEqual(self.registry.services, {})

        asyncio.run(story())

    def test_the_predecessors_shutdown(self) -> None:
        async def story() -> None:
            task = await auto_register_service(service_name="osint_service", port=8049, client=self.client)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.assertTrue(task.done() and task.cancelled())
            self.assertIn("osint_service", self.registry.services)
            self.assertTrue(await self.client.deregister("osint_service"))

        asyncio.run(story())
        self.assertEqual(self.registry.services, {})

    def test_standalone_until_the_registry_comes(self) -> None:
        port = free_port()
        client = RegistryClient(f"http://127.0.0.1:{port}", heartbeat_interval=0.05, timeout=1)
        with self.assertLogs("vertice_client", "WARNING") as logs:
            handle = auto_register_service_sync("osint_service", 8049, client=client)
            self.addCleanup(handle.stop_sync)
        self.assertFalse(handle.is_registered)
        self.assertTrue(any("standalone mode" in line for line in logs.output), logs.output)
        late = FakeRegistry(port)
        self.addCleanup(late.close)
        self.assertTrue(handle.wait_registered(PATIENCE))

    def test_a_registry_that_goes_away_and_comes_back(self) -> None:
        with auto_register_service_sync("osint_service", 8049, client=self.client) as handle:
            with self.assertLogs("vertice_client", "WARNING"):
                self.registry.refuse = 503
                before = self.registry.lines().count("POST /heartbeat")
                self.registry.wait_line("POST /heartbeat", before + 2)
                self.registry.refuse = None
                self.registry.wait_line("POST /heartbeat", before + 4)
            self.assertTrue(handle.is_registered)

    def test_an_absurd_lease_is_no_reason_to_hurry(self) -> None:
        client = RegistryClient(self.registry.url)
        start = time.monotonic()
        with auto_register_service_sync("osint_service", 8049, client=client, ttl=1e-9):
            self.registry.wait_line("POST /heartbeat", 3)
        self.assertGreater(time.monotonic() - start, 0.9)

    def test_stopping_ends_in_bounds_when_nobody_is_there(self) -> None:
        client = RegistryClient(f"http://127.0.0.1:{free_port()}", timeout=1)
        with self.assertLogs("vertice_client", "WARNING"):
            handle = auto_register_service_sync("osint_service", 8049, client=client)
            handle.stop_sync()
        eventually(lambda: not handle._thread.is_alive())

    def test_retries_grow_to_a_minute(self) -> None:
        for failures, full in ((1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)):
            for _ in range(100):
                self.assertTrue(full / 2 <= backoff(failures) <= full)


class TheEndOfTheProgram(unittest.TestCase):
    def setUp(self) -> None:
        self.registry = FakeRegistry()
        self.addCleanup(self.registry.close)

    def run_program(self, program: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "REGISTRY_URL": self.registry.url, "PYTHONPATH": str(PACKAGE)}
        environment.pop("VERTICE_REGISTRY_URL", None)
        child = subprocess.Popen([sys.executable, "-c", program], env=environment)
        self.addCleanup(child.kill)
        return child

    def test_the_end_of_the_interpreter_takes_the_registration_back(self) -> None:
        child = self.run_program(
            "from vertice_client import auto_register_service_sync as start\nhandle = start('osint_service', 8049)\n"
        )
        self.assertEqual(child.wait(PATIENCE), 0)
        self.registry.wait_line("DELETE /deregister/osint_service")

    def test_sigterm_takes_the_registration_back_and_still_kills(self) -> None:
        child = self.run_program(
            "import time\nfrom vertice_client import auto_register_service_sync as start\n"
            "handle = start('osint_service', 8049)\ntime.sleep(60)\n"
        )
        self.registry.wait_line("POST /register")
        child.terminate()
        self.assertEqual(child.wait(PATIENCE), -signal.SIGTERM)
        self.registry.wait_line("DELETE /deregister/osint_service")

    def test_whoever_stops_waiting_for_the_end_leaves_nothing_behind(self) -> None:
        child = self.run_program(
            "import asyncio\n"
            "from vertice_client import auto_register_service as start\n"
            "async def wait(handle):\n"
            "    await handle\n"
            "async def main():\n"
            "    waiting = asyncio.ensure_future(wait(await start('osint_service', 8049)))\n"
            "    await asyncio.sleep(0.1)\n"
            "    waiting.cancel()\n"
            "asyncio.run(main())\n"
        )
        self.assertEqual(child.wait(PATIENCE), 0)
        self.registry.wait_line("DELETE /deregister/osint_service")
