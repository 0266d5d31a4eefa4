"""What each feature costs: the same gateway twice, with one setting different, in paired, interleaved rounds."""

import dataclasses
import os
import statistics

from drive import drive
from report import spread
from rig import FULL_LANE, end

PAIRS = 5  # at least
CONNECTIONS = 32
NOTABLE = 0.5  # µs per request

SERVICE = "VERTICE_SERVICES__BENCH"
RATE_LIMIT = {
    "VERTICE_RATE_LIMITS__0__NAME": "bench", "VERTICE_RATE_LIMITS__0__RATE": "1000000/s", "VERTICE_RATE_LIMITS__0__BURST": "1000000",
}


@dataclasses.dataclass
class Feature:
    """What is switched on, and what both gateways and the load have besides."""

    name: str
    on: dict
    off: dict = dataclasses.field(default_factory=dict)
    fields: str = ""  # of the requests
    body: int = 0
    instances: int = 1
    log_to: str = os.devnull  # where the one that has it on writes its standard output


FEATURES = [
    Feature("nothing: the same twice, what noise makes of it", {}),
    Feature("access log, to /dev/null", {"VERTICE_LOG__ACCESS": "json"}),
    Feature("access log, to a file", {"VERTICE_LOG__ACCESS": "json"}, log_to="access.log"),
    Feature("rate limit by service", RATE_LIMIT | {"VERTICE_RATE_LIMITS__0__BY": "service"}),
    Feature("rate limit by client", RATE_LIMIT | {"VERTICE_RATE_LIMITS__0__BY": "client"}),
    Feature("concurrency.max", {"VERTICE_CONCURRENCY__MAX": "100000"}),
    Feature("concurrency.adaptive", {"VERTICE_CONCURRENCY__ADAPTIVE": "true", "VERTICE_CONCURRENCY__MIN": "10000"}),
    Feature("limits.requests", {"VERTICE_LIMITS__REQUESTS": "1000000"}),
    Feature("limits per connection: requests and age", {
        "VERTICE_LIMITS__REQUESTS_PER_CONNECTION": "1000000000", "VERTICE_LIMITS__CONNECTION_AGE": "24h"}),
    Feature("limits.body_bytes, POST 1 KiB", {"VERTICE_LIMITS__BODY_BYTES": "100MiB"}, body=1024),
    Feature("limits.body_rate, POST 1 KiB", {}, {"VERTICE_LIMITS__BODY_RATE": "0"}, body=1024),
    Feature("timeouts.request", {"VERTICE_TIMEOUTS__REQUEST": "2m"}),
    Feature("trusted proxy that sends X-Forwarded-For", {"VERTICE_SERVER__TRUSTED_PROXIES": "127.0.0.0/8"},
            fields="X-Forwarded-For: 203.0.113.7\r\n"),
    Feature("retries", {}, {"VERTICE_RETRY__ATTEMPTS_MAX": "1"}),
    Feature("outlier ejection, 4 instances", {}, {"VERTICE_OUTLIER__ACTIVE": "false"}, instances=4),
    Feature("round_robin, not p2c, 4 instances", {"VERTICE_BALANCE__ALGORITHM": "round_robin"}, instances=4),
    Feature("random, not p2c, 4 instances", {"VERTICE_BALANCE__ALGORITHM": "random"}, instances=4),
    Feature("consistent_hash, not p2c, 4 instances", {"VERTICE_BALANCE__ALGORITHM": "consistent_hash"}, instances=4),
    Feature("sticky cookie, set with each answer, 4 instances", {"VERTICE_BALANCE__STICKY__ENABLED": "true"}, instances=4),
    Feature("a priority", {f"{SERVICE}__PRIORITY": "high"}),
    Feature("the service's Host kept", {f"{SERVICE}__PRESERVE_HOST": "true"}),
    Feature("active health probes", {"VERTICE_HEALTH__ACTIVE": "true"}),
    Feature("zone preference", {"VERTICE_BALANCE__ZONE": "prefer", "VERTICE_SERVER__ZONE": "a"}, instances=4),
    Feature("express lane", {}, FULL_LANE),
]


def costs(rig, options, report):
    """A table: each feature's median difference."""
    pairs = 1 if options.quick else max(PAIRS, options.rounds)
    rows = []
    for feature in FEATURES:
        if options.scenario and not any(part in feature.name for part in options.scenario):
            continue
        if not all(rig.programs.knows(setting) for setting in (feature.on, feature.off)):
            report.line(f"* {feature.name}: this gateway does not know {', '.join(feature.on | feature.off)}")
            continue
        rows.append(row(feature, measure(rig, feature, pairs, options), report))
    head = ["feature", "off: CPU µs/req (min–max)", "on", "difference µs/req (min–max of the pairs)", "%", ""]
    report.table(f"What features cost: GET 13 B unless said otherwise, c={CONNECTIONS}, {pairs} interleaved pairs", head, rows)
    report.line(f"\nNamed are costs above {NOTABLE} µs; where the pairs differ in sign, there is none to be seen.")


def measure(rig, feature, pairs, options):
    """The two in turn, each first every other time."""
    method, path = ("POST", "/") if feature.body else ("GET", "/")
    log = os.path.join(rig.directory, feature.log_to)  # an absolute path stays as it is
    off = rig.gateway("off", rig.programs.gateway, setting=feature.off, instances=feature.instances)
    with open(log, "wb") as stdout:
        on = rig.gateway("on", rig.programs.gateway, setting=feature.on, instances=feature.instances, stdout=stdout)
    rounds = []
    for turn in range(pairs):
        results = {}
        for gateway in (off, on) if turn % 2 else (on, off):
            results[gateway.name] = drive(
                rig, gateway, CONNECTIONS, options.seconds, method, path, feature.body, feature.fields)
        rounds.append(results)
    end(off.child)
    end(on.child)
    if log != os.devnull:
        os.remove(log)  # it may be large
    return rounds


def row(feature, rounds, report):
    """Differences are taken within pairs."""
    report.measured("costs", {"feature": feature.name, "on": feature.on, "off": feature.off}, {}, rounds)
    off, on = ([results[name]["proxy"] for results in rounds] for name in ("off", "on"))
    differences = [with_it - without for without, with_it in zip(off, on)]
    difference = statistics.median(differences)
    verdict = ""
    if min(differences) < 0 < max(differences):
        verdict = "not to be told from noise"
    elif difference > NOTABLE:
        verdict = f"**above {NOTABLE} µs**"
    return [feature.name, spread(off), spread(on), spread(differences), f"{difference / statistics.median(off):+.1%}", verdict]
