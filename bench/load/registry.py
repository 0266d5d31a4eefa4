"""The registry's path at 10 000 services: what a call costs, how long it takes, and what the data plane feels of registrations.

The gateway, all its threads, is on one core; calls, load and upstream share the other. `bench-registry` makes the calls.
"""

import glob
import json
import os
import statistics
import subprocess
from collections import Counter

from machine import read
from report import spread
from rig import Contender, Unusable, end, get

SERVICES = 10_000
CALLERS = 32
CALLS = ("heartbeat", "lookup", "register")
REGISTRATIONS = 1_000  # a second
PROXIED = 4_000  # a second: a fifth of what the core can do, or less
STRETCH = 5  # seconds: the 99.9th percentile is then the twentieth of 20 000
# What else happens while the data plane is measured; the second row shows what the same thing measured twice differs by.
BESIDE = [
    ("nothing", None),
    ("nothing, once more", None),
    (f"{REGISTRATIONS} look-ups/s", "lookup"),
    (f"{REGISTRATIONS} heartbeats/s", "heartbeat"),
    (f"{REGISTRATIONS} registrations/s", "register"),
]


def registry(rig, options, report):
    """What calls cost; then what they do to others."""
    wanted = {part for part in ("calls", "beside") if not options.scenario or any(part in name for name in options.scenario)}
    if not wanted:
        return
    gateway = rig.gateway("vertice", rig.programs.gateway)
    gateway.wait()
    callers = Callers(rig, gateway.registry_port, CALLERS)
    callers.ask("fill")
    services = int(sample(gateway, "registry_active_services"))
    report.line(f"* registry: {services} services, 1 worker, every thread of the gateway on one core; embedded store")
    if "calls" in wanted:
        calls(gateway, callers, options, report)
    if "beside" in wanted:
        beside(rig, gateway, callers, options, report)
    callers.end()
    end(gateway.child)


def calls(gateway, callers, options, report):
    """Each call as fast as it is answered, and at half of that rate, which is when latencies mean something."""
    seconds = 1 if options.quick else STRETCH
    rounds = {call: [] for call in CALLS}
    for call in CALLS if not options.quick else ():
        callers.ask(f"{call} 1")
    for _ in range(options.rounds):
        for call in CALLS:
            before, own = gateway.cpu_seconds(), callers.cpu_seconds()
            full = callers.ask(f"{call} {seconds}")
            cpu, own = gateway.cpu_seconds() - before, callers.cpu_seconds() - own
            rate = full["answered"] / full["micros"] * 1e6
            half = callers.ask(f"{call} {seconds} {rate / 2:.0f}")
            rounds[call].append({"rate": rate, "cpu": cpu / full["answered"] * 1e6, "own": own / full["micros"] * 1e6,
                                 "full": full["took"], "half": half["took"]})
    report.measured("registry", {"calls": list(CALLS), "services": SERVICES}, {}, rounds)
    rows = []
    for call in CALLS:
        results = rounds[call]
        cpu = [result["cpu"] for result in results]
        rows.append([
            call, f"{1e6 / statistics.median(cpu):.0f}", spread(cpu), f"{median(r['rate'] for r in results):.0f}",
            *[f"{median(r['full'][key] for r in results):.0f}" for key in ("p50", "p99")],
            *[f"{median(r['half'][key] for r in results):.0f}" for key in ("p50", "p99", "p999")],
            f"{median(r['own'] for r in results):.0%}",
        ])
    head = ["", "calls per core and second", "CPU µs/call (min–max)", "answered/s", "p50 µs", "p99",
            "p50 µs at half the rate", "p99", "p99.9", "the callers' core"]
    report.table(f"Calls to the registry, {SERVICES} services, {CALLERS} connections", head, rows)


def beside(rig, gateway, callers, options, report):
    """Proxied requests at a fixed rate, alone and beside calls to the registry."""
    seconds = 1 if options.quick else STRETCH
    load = Callers(rig, gateway.port, CALLERS)
    load.ask(f"proxied 1 {PROXIED}")
    rounds = []
    for _ in range(options.rounds):
        rounds.append({name: stretch(gateway, load, callers, call, seconds) for name, call in BESIDE})
    report.measured("registry", {"proxied_beside": [name for name, _ in BESIDE], "services": SERVICES}, {}, rounds)
    rows = []
    for name, _ in BESIDE:
        results = [results_of[name] for results_of in rounds]
        ratios = [results_of[name]["p999"] / max(1, results_of[BESIDE[0][0]]["p999"]) for results_of in rounds]
        threads = [f"{thread} {median(r['threads'][thread] for r in results):.0f}" for thread in busy(results)]
        published = [f"{median(r[key] for r in results):.0f}" for key in ("publishes", "publish_mean")]
        rows.append([
            name, *[f"{median(r[key] for r in results):.0f}" for key in ("p50", "p99", "p999", "max")], spread(ratios),
            *published, f"{min(r['publish_short'] for r in results):.2%}", ", ".join(threads),
        ])
    head = ["beside", "p50 µs", "p99", "p99.9", "max", "p99.9 × alone (min–max)", "publishes/s", "mean µs", "within 100 µs",
            "CPU ms/s by thread"]
    report.table(f"Proxied requests, {PROXIED}/s, at {SERVICES} services", head, rows)
    load.end()


def stretch(gateway, load, callers, call, seconds):
    """One stretch of proxied requests, beside those calls."""
    published, threads = publishes(gateway), gateway_threads(gateway)
    load.begin(f"proxied {seconds} {PROXIED}")
    if call:
        callers.ask(f"{call} {seconds} {REGISTRATIONS}")
    result = load.result()["took"]
    took = {thread: (cpu - threads[thread]) / seconds * 1e3 for thread, cpu in gateway_threads(gateway).items()}
    count, total, short = (after - before for after, before in zip(publishes(gateway), published))
    return {**result, "threads": Counter(took), "publishes": count / seconds,
            "publish_mean": total / count * 1e6 if count else 0, "publish_short": short / count if count else 1}


def publishes(gateway):
    """How many tables were published, how long that took altogether, and how many took 100 µs at most."""
    name = "vertice_snapshot_publish_seconds"
    return [sample(gateway, f"{name}_count"), sample(gateway, f"{name}_sum"), sample(gateway, f'{name}_bucket{{le="0.0001"}}')]


def sample(gateway, name):
    """One figure of the registry's metrics."""
    lines = get(gateway.registry_port, "/metrics").decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))


def gateway_threads(gateway):
    """CPU seconds of the gateway's threads so far, by name."""
    times = Counter()
    for task in glob.glob(f"/proc/{gateway.child.pid}/task/*"):
        times[read(f"{task}/comm").strip()] += int(read(f"{task}/schedstat").split()[0]) / 1e9
    return times


def busy(results):
    """The threads that took half a millisecond in a second, the busiest first."""
    medians = {thread: median(r["threads"][thread] for r in results) for thread in results[0]["threads"]}
    return sorted((thread for thread, ms in medians.items() if ms >= 0.5), key=lambda thread: -medians[thread])


def median(values):
    return statistics.median(values)


class Callers:
    """A process that makes calls, on the core of the load."""

    def __init__(self, rig, port, connections):
        command = [rig.programs.registry, str(port), str(SERVICES), str(connections)]
        self.child = rig.spawn(command, cores=None, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        self.process = Contender(os.path.basename(command[0]), self.child, port, "")

    def begin(self, line):
        """Has calls made."""
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def result(self):
        """What became of them; none may fail."""
        line = self.child.stdout.readline()
        if not line:
            raise Unusable("the callers gave up")
        result = json.loads(line)
        if result["failed"] or not result["answered"]:
            raise Unusable(f"calls failed: {result['failed']}")
        return result

    def ask(self, line):
        """Both."""
        self.begin(line)
        return self.result()

    def cpu_seconds(self):
        """What the callers took themselves, threads that have ended included; in steps of a tick."""
        return sum(self.process.user_and_system()) / os.sysconf("SC_CLK_TCK")

    def end(self):
        """Ends the process."""
        self.child.stdin.close()
        end(self.child)
