"""POSTs on connections that are idle for about as long as uvicorn keeps them: 5 s by default, and no POST may be sent twice.

One real uvicorn listens on many loopback addresses; each is a service with a pool of connections of its own and two clients,
which POST at once, pause, and POST at once again. So a pooled connection is reused after exactly that pause, or is not.
"""

import asyncio
import collections
import os
import random
import subprocess
import sys
import time

from faults import answer_line
from rig import PATIENCE, Unusable, end, free_port, gateway_env, get, register, wait_for

CLIENTS = 2  # of each service
POST = "POST /v2/idle_{number}/x HTTP/1.1\r\nHost: bench\r\nContent-Length: 100\r\n\r\n" + "x" * 100
EDGES = [(0, 3.95), (3.95, 4.05), (4.05, 4.95), (4.95, 5.05), (5.05, 99)]


def keepalive(rig, options, report):
    """With the gateway's default of 4 s, and with 5 s, which is a mistake."""
    python = python_with_uvicorn(options)
    services, posts = (150, 900) if options.quick else (1000, 100_000)
    rows = []
    for configured, count in (("4s", posts), ("5s", posts // 4)):
        tally = run(rig, python, services, count, configured)
        rows.append([f"{configured}{' (default)' if configured == '4s' else ' (as long as uvicorn: a mistake)'}", *tally.columns()])
    head = ["upstream_keepalive", "POSTs", "on a reused connection", "failed", "p99 ms", *(edge_name(edge) for edge in EDGES), "what clients saw"]
    report.table(f"POSTs to uvicorn (5 s keep-alive) after pauses of 3.9 to 5.2 s, {services} services (goal: 0 failed at 4 s)", head, rows)
    report.line("\nBy pause: POSTs / on a reused connection / failed. A third of the pauses is within 30 ms of 4 s, a third of 5 s. A p99 "
                "of seconds says that gateway, uvicorn and clients waited for a processor, so that all idle times were longer than meant.")


def python_with_uvicorn(options):
    """The Python to use; asked before anything is measured."""
    python = options.python or sys.executable
    if subprocess.run([python, "-c", "import uvicorn, fastapi"], check=False, capture_output=True).returncode:
        raise Unusable(f"{python} has no uvicorn and fastapi (pip install uvicorn fastapi): name one that has with --python")
    return python


class Tally:
    """What became of the POSTs, by the pause before them."""

    def __init__(self):
        self.posts = collections.Counter()
        self.reused = collections.Counter()
        self.failed = collections.Counter()
        self.why = collections.Counter()
        self.took = []

    def note(self, pause, is_reused, took, complaint):
        """One POST."""
        self.took.append(took)
        edge = next(edge for edge in EDGES if edge[0] <= pause < edge[1])
        self.posts[edge] += 1
        self.reused[edge] += is_reused
        if complaint:
            self.failed[edge] += 1
            self.why[complaint] += 1

    def columns(self):
        """The row's figures."""
        each = [f"{self.posts[edge]} / {self.reused[edge]} / {self.failed[edge]}" for edge in EDGES]
        why = ", ".join(f"{times} × {what}" for what, times in self.why.items())
        late = sorted(self.took)[len(self.took) * 99 // 100] * 1000
        return [*(str(sum(counter.values())) for counter in (self.posts, self.reused, self.failed)), f"{late:.0f}", *each, why]


def run(rig, python, services, posts, configured):
    """A gateway and a uvicorn of their own."""
    ports = (free_port(), free_port())
    rig.count += 1
    env = gateway_env(ports, os.path.join(rig.directory, f"store-{rig.count}"))
    env["VERTICE_TIMEOUTS__UPSTREAM_KEEPALIVE"] = configured
    gateway = rig.spawn([rig.programs.gateway, "run"], None, env=env)
    wait_for(lambda: get(ports[0], "/health"), "the gateway to start")
    app = os.path.join(os.path.dirname(os.path.abspath(__file__)), "uvicorn_app.py")
    addresses = [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(services)]
    uvicorn = rig.spawn([python, app, *addresses], None, stdout=subprocess.PIPE)
    port = int(answer_line(uvicorn))
    for number, address in enumerate(addresses):
        register(ports[1], port, service=f"idle_{number}", host=address)
    tally = Tally()
    asyncio.run(everybody(ports[0], services, max(1, posts // (services * CLIENTS)), tally))
    end(gateway)
    end(uvicorn)
    return tally


async def everybody(port, services, turns, tally):
    """All clients, none in step with the clients of another service."""
    await asyncio.gather(*(pair(port, number, turns, tally) for number in range(services)))


async def pair(port, number, turns, tally):
    """The clients of one service, turn after turn."""
    clients = [Client(port, POST.format(number=number).encode()) for _ in range(CLIENTS)]
    seen = set()
    await asyncio.sleep(random.uniform(0, 5))
    pause = None
    for _ in range(turns + 1):
        answers = await asyncio.gather(*(client.ask() for client in clients))
        for (status, text), took in answers:
            if pause is not None:
                tally.note(pause, text in seen, took, "" if status == 200 else f"{status} {text}")
        # One that the other client opened a moment ago was not idle.
        seen.update(text for (_, text), _ in answers)
        pause = random.choice((random.uniform(3.9, 5.2), random.uniform(3.97, 4.03), random.uniform(4.97, 5.03)))
        await asyncio.sleep(pause)


class Client:
    """One connection to the gateway."""

    def __init__(self, port, request):
        self.port, self.request, self.streams = port, request, None

    async def ask(self):
        """An answer, or 0 and what happened instead; and how many seconds it took."""
        begun = time.monotonic()
        try:
            answer = await asyncio.wait_for(self.exchange(), PATIENCE)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.streams = None
            answer = 0, type(error).__name__
        return answer, time.monotonic() - begun

    async def exchange(self):
        """Status and body of an answer; of one of the gateway's own, its reason."""
        self.streams = self.streams or await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = (await reader.readexactly(int(fields["content-length"]))).decode()
        if fields.get("connection") == "close":
            writer.close()
            self.streams = None
        return int(head[9:12]), fields.get("x-vertice-reason", body)


def edge_name(edge):
    """For people."""
    low, high = edge
    if low == 0:
        return f"below {high} s"
    return f"above {low} s" if high == 99 else f"{low} to {high} s"
