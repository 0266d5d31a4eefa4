"""From exec to the first answer; what gateway and sidecar hold at rest, and how large they are."""

import os
import shutil
import socket
import subprocess
import time

from memory import exchange
from report import spread
from rig import PATIENCE, PREFIX, Contender, end, gateway_env, get, sidecar_env, wait_for


def start_and_rest(rig, options, report):
    """From exec to the first 200 with a restored registration; what gateway and sidecar hold at rest."""
    times = 3 if options.quick else 10
    gateway = rig.gateway("vertice", rig.programs.gateway)
    ports, store = (gateway.port, gateway.registry_port), gateway.store
    end(gateway.child)
    starts, stops = [], []
    for _ in range(times):
        started = time.monotonic()
        child = rig.spawn([rig.programs.gateway, "run"], rig.proxy_core, env=gateway_env(ports, store))
        wait_for(lambda: first_answer(ports[0]), "the first 200", pause=0.0002)
        starts.append((time.monotonic() - started) * 1e3)
        stops.append(end(child) * 1e3)
    gateway = rig.gateway("vertice", rig.programs.gateway, ports, store)
    sidecar = rig.spawn([rig.programs.sidecar], rig.proxy_core, env=sidecar_env(ports[1], rig.upstream_port))
    wait_for(lambda: get(ports[1], "/services/bench_sidecar"), "the sidecar to register")
    time.sleep(2)
    rows = [
        ["start to first 200, one stored registration, ms", spread(starts)],
        ["SIGTERM to exit, idle, ms", spread(stops)],
        ["idle RSS of the gateway, MiB", f"{gateway.rss_kib() / 1024:.1f}"],
        ["idle RSS of the sidecar, MiB", f"{Contender('', sidecar, 0, '').rss_kib() / 1024:.1f}"],
        ["size of the gateway, stripped, MiB", stripped_size(rig, rig.programs.gateway)],
        ["size of the sidecar, stripped, MiB", stripped_size(rig, rig.programs.sidecar)],
    ]
    report.table("Start and rest", ["", "median (min–max)"], rows)


def first_answer(port):
    """Whether the upstream's answer comes through the gateway."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        exchange(client, PREFIX + "/")
    return True


def stripped_size(rig, program):
    """How large the program is without symbols."""
    if shutil.which("strip") is None:
        return "?"
    path = os.path.join(rig.directory, "stripped")
    subprocess.run(["strip", "-o", path, program], check=True)
    return f"{os.path.getsize(path) / 2**20:.1f}"
