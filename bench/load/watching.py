"""What clients that watch the registry cost, and how soon they hear of a change."""

import json
import statistics
import subprocess
import time

from drive import drive
from report import ratio, spread
from rig import PATIENCE, Unusable, end, get

WATCHERS = 1000


def watching(rig, options, report):
    """What clients that watch the registry cost, how soon they hear of a change, and what the data plane feels of them."""
    rows = []
    for kind in ("stream", "long-poll"):
        gateway = rig.gateway("vertice", rig.programs.gateway)
        gateway.wait()
        for _ in range(100):
            get(gateway.port, gateway.prefix + "/")
        before = gateway.rss_kib()
        with Watchers(rig, gateway, kind) as watchers:
            time.sleep(0.5)
            each = (gateway.rss_kib() - before) / WATCHERS
            watchers.changes(5, 50)
            cpu = gateway.cpu_seconds()
            times = 20 if options.quick else 100
            result = watchers.changes(times, 50)
            cpu = (gateway.cpu_seconds() - cpu) / times / WATCHERS * 1e6
        latencies = [f"{result[since][key] / 1000:.1f}" for since in ("from_request", "from_201") for key in ("p50", "p99", "max")]
        rows.append([kind, f"{each:.1f}", *latencies, f"{cpu:.1f}"])
        end(gateway.child)
    head = ["", "KiB per watcher", "p50 ms from the request", "p99", "max", "p50 ms from its 201", "p99", "max",
            "CPU µs per watcher and change"]
    report.table(f"{WATCHERS} watchers of one service: memory, and until each has heard of a change", head, rows)
    data_plane_beside_watchers(rig, options, report)


def data_plane_beside_watchers(rig, options, report):
    """Proxied requests without watchers, with idle ones, and with ones that hear ten changes a second."""
    gateway = rig.gateway("vertice", rig.programs.gateway)
    gateway.wait()
    load = lambda: drive(rig, gateway, 32, options.seconds)
    load()
    rounds = []
    for _ in range(options.rounds):
        results = {"no watchers": load()}
        for kind in ("stream", "long-poll"):
            with Watchers(rig, gateway, kind) as watchers:
                results[f"{WATCHERS} idle, {kind}"] = load()
                # A little longer than the load, so that there are changes throughout.
                watchers.start_changes(options.seconds * 10 + 8, 100)
                results[f"{WATCHERS}, {kind}, 10 changes/s"] = load()
                watchers.result()
        rounds.append(results)
    rows = []
    for name in rounds[0]:
        results = [results_of[name] for results_of in rounds]
        row = [name] + [f"{statistics.median(r[key] for r in results):.0f}" for key in ("rate", "p50", "p99")]
        rows.append(row + [spread([r["proxy"] for r in results]), ratio(rounds, name, "no watchers", "proxy")])
    head = ["", "req/s", "p50 µs", "p99 µs", "CPU µs/req (min–max)", "× without"]
    report.table("GET 13 B, c=32, beside watchers on the registry's listener", head, rows)
    end(gateway.child)


class Watchers:
    """A process with many clients that watch one service."""

    def __init__(self, rig, gateway, kind):
        command = [rig.programs.watchers, str(gateway.registry_port), kind, str(WATCHERS)]
        self.child = rig.spawn(command, cores=None, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        line = self.child.stdout.readline()
        if line != b"ready\n":
            raise Unusable(f"the watchers did not get ready: {line!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait(PATIENCE)

    def start_changes(self, count, pause_ms):
        """Has the service change so often."""
        self.child.stdin.write(f"changes {count} {pause_ms}\n".encode())
        self.child.stdin.flush()

    def result(self):
        """How soon everybody had heard of the changes."""
        line = self.child.stdout.readline()
        if not line:
            raise Unusable("the watchers gave up")
        return json.loads(line)

    def changes(self, count, pause_ms):
        """Both."""
        self.start_changes(count, pause_ms)
        return self.result()
