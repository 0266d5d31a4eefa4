"""A service, and the gateway itself, asked for more than they can do: what is still served, and how soon.

The service has workers, each of which takes a fixed time for a request; its capacity is known exactly, and those that nobody
turns away wait in its queue, as in most servers. The load is open: it does not slow down because answers do.
"""

import json
import subprocess
import time

from faults import Load, Trio
from rig import PATIENCE

INSTANCES = 2
WORKERS = 4  # of each instance
WORK = 40  # ms
CAPACITY = INSTANCES * WORKERS * 1000 // WORK  # requests/s
IN_TIME = 500  # ms
PATIENT = 3000  # ms; then the client gives up, as users do, and the service works on
FACTOR = 3
GOAL = 0.9

# What the faults' gateway has shorter.
DEFAULTS = {"VERTICE_TIMEOUTS__FIRST_BYTE": "30s", "VERTICE_BREAKER__OPEN": "30s"}
LIMITS = [
    ("no limit", {}),
    ("concurrency.max = 16", {"VERTICE_CONCURRENCY__MAX": str(2 * INSTANCES * WORKERS)}),
    ("concurrency.adaptive = true", {"VERTICE_CONCURRENCY__ADAPTIVE": "true"}),
]
GET = [{"name": "GET", "method": "GET", "path": "/v2/bench/x"}]
CLIENTS = 512  # of the gateway, each of which asks as fast as it is answered


def overload(rig, options, report):
    """A service beyond its capacity; then the gateway."""
    report.line(
        f"* overload: {INSTANCES} instances of {WORKERS} workers of {WORK} ms: {CAPACITY} requests/s can be served; in time is within "
        f"{IN_TIME} ms, clients give up after {PATIENT / 1000:g} s")
    if not options.scenario or any(part in "service" for part in options.scenario):
        service(rig, options, report)
    if not options.scenario or any(part in "gateway" for part in options.scenario):
        gateway(rig, options, report)


# ---- a service --------------------------------------------------------------------------------------------------------------


def service(rig, options, report):
    """Three times its capacity, without a limit and with each kind."""
    seconds, after = (5, 3) if options.quick else (20, 5)
    rows = []
    for name, config in LIMITS:
        with Trio(rig, DEFAULTS | config, INSTANCES) as trio:
            for instance in trio.instances:
                instance.order(f"workers {WORKERS} {WORK}")
            plan = {"kinds": GET, "goal_ms": IN_TIME, "patience_ms": PATIENT}
            with trio.load(CAPACITY // 2, **plan) as load:
                rows.append(row(f"{name}, at half of capacity", load, after))
            with trio.load(CAPACITY * FACTOR, **plan) as load:
                # An adaptive limit finds itself.
                time.sleep(2)
                load.take()
                rows.append(row(f"{name}, at {FACTOR} ×", load, seconds))
            with trio.load(CAPACITY // 2, **plan) as load:
                rows.append(row(f"{name}, at half of capacity again", load, after))
    head = ["", "requests/s", "200s/s", "in time/s", "goodput, % of what could be served", "p50 ms of 200s", "p99", "max",
            "refused/s", "p99 ms of refusals", "max", "what else"]
    report.table(
        f"A service at {FACTOR} × its capacity for {seconds} s (goal: goodput ≥ {GOAL:.0%} of {CAPACITY}/s, p99 of the admitted bounded)",
        head, rows)


def row(name, load, seconds):
    """What became of a stretch."""
    time.sleep(seconds)
    stretch = load.take()
    result, took = stretch.kinds["GET"], stretch.seconds
    requests, served, in_time = (result[key] / took for key in ("requests", "served", "in_time"))
    refused = {why: times for why, times in result["failed"].items() if why.startswith(("429", "503"))}
    others = ", ".join(f"{times} × {why}" for why, times in result["failed"].items() if why not in refused)
    return [name, f"{requests:.0f}", f"{served:.0f}", f"{in_time:.0f}", f"{in_time / min(CAPACITY, requests):.0%}",
            *millis(result["took"]), f"{sum(refused.values()) / took:.0f}", *millis(result["refused"])[1:], others]


# ---- the gateway ------------------------------------------------------------------------------------------------------------


def gateway(rig, options, report):
    """As many requests as it can take, and what registry and health answer meanwhile."""
    seconds = 3 if options.quick else 10
    rows = []
    for name, config in [("no limit", {}), ("limits.requests = 64", {"VERTICE_LIMITS__REQUESTS": "64"})]:
        with Trio(rig, config, INSTANCES) as trio:
            rows += beside(rig, trio, f"{name}, at rest", seconds)
            plan = {"port": trio.ports[0], "connections": CLIENTS, "seconds": seconds + 2, "warm_seconds": 0, "method": "GET", "path": "/v2/bench/x"}
            mill = rig.spawn([rig.programs.clients, json.dumps(plan)], None, stdout=subprocess.PIPE)
            time.sleep(1)
            rows += beside(rig, trio, f"{name}, beside {CLIENTS} clients at full speed", seconds)
            result = json.loads(mill.communicate(timeout=PATIENCE)[0])
            rate = result["requests"] / result["micros"] * 1e6
            report.line(f"* {name}: the {CLIENTS} clients got {rate:.0f} answers/s, in all {result['refused']} of them refusals")
    head = ["", "what", "requests", "failed", "p50 ms", "p99", "max", "why"]
    report.table("A gateway at its own limit: registry and health are answered in time", head, rows)


def beside(rig, trio, name, seconds):
    """Calls that must be answered whatever the load is, 50 a second of each."""
    beat = json.dumps({"service_name": "bench", "instance_id": "i0"})
    fields = "Content-Type: application/json\r\n"
    data = [{"name": "GET /health", "method": "GET", "path": "/health"}, {"name": "GET /v2/bench/x", "method": "GET", "path": "/v2/bench/x"}]
    registry = [{"name": "POST /heartbeat", "method": "POST", "path": "/heartbeat", "fields": fields, "body": beat},
                {"name": "GET /services/bench", "method": "GET", "path": "/services/bench"}]
    plan = {"rate": 100, "under_way": 1000, "patience_ms": 10_000, "goal_ms": 1000}
    with Load(rig, {"port": trio.ports[0], "kinds": data, **plan}) as first, \
            Load(rig, {"port": trio.ports[1], "kinds": registry, **plan}) as second:
        time.sleep(seconds)
        kinds = first.take().kinds | second.take().kinds
    return [[name, what, str(result["requests"]), str(sum(result["failed"].values())), *millis(result["took"]),
             ", ".join(f"{times} × {why}" for why, times in result["failed"].items())] for what, result in kinds.items()]


def millis(took):
    """Percentiles for people."""
    return [f"{took[key] / 1000:.1f}" for key in ("p50", "p99", "max")]
