"""One of three instances fails under a steady load: what clients notice, and how soon it is out and in again.

The load is open: so many requests a second are sent whatever becomes of them, by `bench-open`, and their time counts from when
they were due. Nothing is pinned: gateway, instances and load share all cores.
"""

import http.client
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from rig import OPENER, PATIENCE, Unusable, end, free_port, gateway_env, get, register, wait_for

SERVICE = "bench"
BODY = 16 * 1024  # bytes of a PUT's, few enough to be kept for another attempt
FIRST_BYTE = 1.0  # seconds; how long an instance that hangs is waited for
OPEN = 2.0  # seconds; how long a breaker is open
RATE = 300
PATIENT = 10_000  # ms; how long a client waits
DRAIN = 1  # seconds
EJECTED = 75  # seconds; who is ejected by comparison with the others is so for 30 s, the second time for longer

# What the instance is told, and how it is called.
FAULTS = [
    ("refuse", "refuses connections"),
    ("reset", "resets connections"),
    ("hang", "hangs"),
    ("deaf", "accepts, never reads"),
    ("garbage", "answers garbage"),
    ("slow 400", "answers after 400 ms"),
    ("cut", "dies in the middle of bodies"),
    ("flap", "flaps: 300 ms sound, 300 ms resetting"),
    ("unavailable", "answers 503"),
    ("impatient", "closes idle connections within 20 ms"),
    ("stop", "is stopped (SIGSTOP)"),
    ("kill", "is killed (-9), started again"),
]

# A failed request whose repetition is safe must not be seen by its client, unless its answer had begun.
SAFE = ("GET", "PUT", "DELETE")


def faults(rig, options, report):
    """A row for each fault; then the restart of all instances, one after another."""
    wanted = [f for f in FAULTS if not options.scenario or any(part in name for name in f for part in options.scenario)]
    if wanted:
        matrix(rig, options, report, wanted)
    if not options.scenario or any(part in "rolling" for part in options.scenario):
        rolling_restart(rig, options, report)


def matrix(rig, options, report, wanted):
    """A row for each fault, one of three instances failing."""
    before, during, after = (1, 2, 2) if options.quick else (2, 8, 4)
    report.line(
        f"* faults: {RATE} requests/s (GET, PUT of 16 KiB, DELETE, POST of 1 KiB: a quarter each), one of three instances failing for "
        f"{during} s; timeouts.first_byte {FIRST_BYTE:g} s, breaker.open {OPEN:g} s, all else as by default; nothing is pinned")
    rows, totals = [], Totals()
    # p2c avoids an instance that is slow to fail before its breaker opens; in turn, the breaker has to do it.
    algorithms = ["p2c"] if options.quick else ["p2c", "round_robin"]
    for (order, name), algorithm in itertools.product(wanted, algorithms):
        print(f"… {name}, {algorithm}", file=sys.stderr, flush=True)
        with Trio(rig, {"VERTICE_BALANCE__ALGORITHM": algorithm}) as trio, trio.load(RATE) as load:
            time.sleep(before)
            healthy = load.take()
            retries = trio.retries()
            out = trio.until(lambda trio=trio, order=order: trio.fault(order), trio.is_out, during)
            time.sleep(max(0, during - (out or during)))
            back = trio.until(trio.heal, trio.is_in, EJECTED)
            time.sleep(after)
            result = load.take()
            rows.append([name, algorithm, *result.columns(), f"{trio.retries() - retries:.0f}", millis(out), millis(back),
                         result.why() + (f"; before the fault: {healthy.why()}" if healthy.errors() else "")])
            totals.add(result)
    head = ["one of three", "balance", "requests", "failed, safe to repeat", "failed, others", "p99 ms of 200s", "max", "retries",
            "ms until out", "ms until in again", "what clients saw of it"]
    report.table("Failed requests beside an instance that fails (goal: 0 of those that are safe to repeat)", head, rows)
    report.line(f"\n{totals.text()}")
    report.line(
        "Safe to repeat: GET, PUT, DELETE whose answer had not begun. `ms until out`: from the fault until the instance's breaker is "
        "not closed or it is ejected, asked each 5 ms; `-`: never. `in again`: from its health until its breaker is closed and it is not ejected.")


def rolling_restart(rig, options, report):
    """Each instance in turn leaves with a drain, is killed when that is over, and comes back."""
    rounds = 1 if options.quick else 5
    with Trio(rig) as trio, trio.load(RATE) as load:
        time.sleep(1)
        load.take()
        retries = trio.retries()
        for _ in range(rounds):
            for number, instance in enumerate(trio.instances):
                delete(trio.ports[1], f"/deregister/{SERVICE}?instance_id=i{number}&drain={DRAIN}s")
                time.sleep(DRAIN)
                instance.end()
                instance.start()
                register(trio.ports[1], instance.port, f"i{number}")
                time.sleep(0.5)
        result = load.take()
        row = [str(rounds * len(trio.instances)), *result.columns(), f"{trio.retries() - retries:.0f}", result.why()]
    head = ["restarts", "requests", "failed, safe to repeat", "failed, others", "p99 ms of 200s", "max", "retries", "what clients saw of it"]
    report.table(f"Three instances restarted one after another, each after a drain of {DRAIN} s (goal: nothing fails)", head, [row])


class Totals:
    """Over all faults."""

    def __init__(self):
        self.requests = self.safe = self.others = 0

    def add(self, result):
        """One more row."""
        safe, others = result.failed()
        self.requests, self.safe, self.others = self.requests + result.requests(), self.safe + safe, self.others + others

    def text(self):
        """For people."""
        million = 1e6 / max(1, self.requests)
        return (f"In all {self.requests} requests: {self.safe} failed that were safe to repeat ({self.safe * million:.0f} per 10⁶), "
                f"{self.others} others ({self.others * million:.0f} per 10⁶).")


class Result:
    """What became of a stretch of load."""

    def __init__(self, answer):
        self.kinds, self.seconds = answer["kinds"], answer["micros"] / 1e6

    def requests(self):
        """How many were due."""
        return sum(kind["requests"] for kind in self.kinds.values())

    def errors(self):
        """Complaints and their number, by kind."""
        return {name: kind["failed"] for name, kind in self.kinds.items() if kind["failed"]}

    def failed(self):
        """How many failed that were safe to repeat, and how many others."""
        safe = others = 0
        for name, kind in self.kinds.items():
            for complaint, times in kind["failed"].items():
                if name in SAFE and not complaint.startswith("cut short"):
                    safe += times
                else:
                    others += times
        return safe, others

    def columns(self):
        """The row's first figures."""
        safe, others = self.failed()
        took = [kind["took"] for kind in self.kinds.values()]
        return [str(self.requests()), str(safe), str(others), *(f"{max(t[key] for t in took) / 1000:.1f}" for key in ("p99", "max"))]

    def why(self):
        """What clients saw."""
        return ", ".join(f"{times} × {name}: {what}" for name, failed in self.errors().items() for what, times in failed.items())


class Load:
    """`bench-open` at work."""

    def __init__(self, rig, plan):
        command = [rig.programs.open, json.dumps(plan)]
        self.patience = plan["patience_ms"] / 1000 + PATIENCE
        self.child = rig.spawn(command, cores=None, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        end(self.child)

    def take(self):
        """What became of the requests since the last call."""
        self.child.stdin.write(b"take\n")
        self.child.stdin.flush()
        line = answer_line(self.child, self.patience)
        return Result(json.loads(line))


class Instance:
    """`bench-faulty` at work."""

    def __init__(self, rig, port):
        self.rig, self.port = rig, port
        self.start()

    def start(self):
        """Starts it, at first or again."""
        command = [self.rig.programs.faulty, str(self.port)]
        self.child = self.rig.spawn(command, cores=None, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer_line(self.child)

    def order(self, text):
        """Has it behave like that."""
        self.child.stdin.write(f"{text}\n".encode())
        self.child.stdin.flush()
        answer_line(self.child)

    def end(self):
        """Ends it, even when it is stopped."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


class Trio:
    """A gateway and three instances of a service, of which the first will fail."""

    def __init__(self, rig, config=None, count=3):
        self.rig = rig
        self.ports = (free_port(), free_port())
        rig.count += 1
        env = gateway_env(self.ports, os.path.join(rig.directory, f"store-{rig.count}"))
        env |= {"VERTICE_TIMEOUTS__FIRST_BYTE": f"{FIRST_BYTE}s", "VERTICE_BREAKER__OPEN": f"{OPEN}s", **(config or {})}
        self.gateway = rig.spawn([rig.programs.gateway, "run"], None, env=env)
        wait_for(lambda: get(self.ports[0], "/health"), "the gateway to start")
        self.instances = [Instance(rig, steady_port()) for _ in range(count)]
        for number, instance in enumerate(self.instances):
            register(self.ports[1], instance.port, f"i{number}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.gateway)
        for instance in self.instances:
            instance.end()

    def load(self, rate, kinds=None, **plan):
        """A steady load of all kinds of requests."""
        return Load(self.rig, {"port": self.ports[0], "rate": rate, "under_way": 4000, "patience_ms": PATIENT, "goal_ms": 1000,
                               "kinds": kinds or KINDS, **plan})

    def fault(self, order):
        """The first instance begins to fail."""
        first = self.instances[0]
        if order in ("stop", "kill"):
            first.child.send_signal(signal.SIGSTOP if order == "stop" else signal.SIGKILL)
        else:
            first.order(order)
        self.order = order

    def heal(self):
        """It is sound again."""
        first = self.instances[0]
        if self.order == "stop":
            first.child.send_signal(signal.SIGCONT)
        elif self.order == "kill":
            first.child.wait()
            first.start()
        else:
            first.order("sound")

    def until(self, action, condition, patience):
        """Seconds from the action until the condition holds; None when it does not."""
        states = States(self.ports[1])
        action()
        begun = time.monotonic()
        while time.monotonic() - begun < patience:
            if condition(states.first()):
                return time.monotonic() - begun
            time.sleep(0.005)
        return None

    @staticmethod
    def is_out(state):
        """Whether it gets no requests, or only those that try it."""
        return state["breaker"] != "closed" or state["ejected_seconds"] > 0

    @staticmethod
    def is_in(state):
        """Whether it is one of three again."""
        return not Trio.is_out(state)

    def retries(self):
        """Attempts after the first ones, so far."""
        return metric(self.ports[0], "vertice_upstream_retries_total")


class States:
    """How the gateway sees the instances, asked on a connection that is kept."""

    def __init__(self, port):
        self.client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def first(self):
        """The first instance."""
        self.client.request("GET", "/gateway/status")
        answer = self.client.getresponse()
        status = json.loads(answer.read())
        instances = [i for service in status["services"] for i in service["instances"] if service["service_name"] == SERVICE]
        return next(instance for instance in instances if instance["instance_id"] == "i0")


KINDS = [
    {"name": "GET", "method": "GET", "path": "/v2/bench/x"},
    {"name": "PUT", "method": "PUT", "path": "/v2/bench/x", "body": "x" * BODY},
    {"name": "DELETE", "method": "DELETE", "path": "/v2/bench/x"},
    {"name": "POST", "method": "POST", "path": "/v2/bench/x", "body": "x" * 1024},
]


# ---- what others use, too -------------------------------------------------------------------------------------------------


def answer_line(child, patience=PATIENCE):
    """The next line of what it prints."""
    lines = []
    reader = threading.Thread(target=lambda: lines.append(child.stdout.readline()), daemon=True)
    reader.start()
    reader.join(patience)
    if not lines or not lines[0]:
        raise Unusable(f"{child.args[0]} gave no answer")
    return lines[0]


def delete(port, path):
    """Calls it; anything but a 200 raises."""
    with OPENER.open(urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="DELETE"), timeout=PATIENCE):
        pass


def metric(port, name):
    """The sum of a metric's values."""
    text = get(port, "/metrics").decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def steady_port():
    """A free port that no outgoing connection is given meanwhile: who connects to its own port talks to itself."""
    for _ in range(1000):
        port = random.randrange(15000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Unusable("no free port")


def millis(seconds):
    """For people."""
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
