"""What is measured, and what it is measured with: servers in a temporary directory, ended when the rig ends."""

import json
import os
import socket
import subprocess
import time
import urllib.request

from contenders import OPENER, OTHERS, PATIENCE, PREFIX, Contender, Unusable, ask, floor, wait_for
from machine import ROOT, installed

FULL_LANE = {"VERTICE_GATEWAY__EXPRESS": "false"}


class Programs:
    """Paths of what is measured and what it is measured with."""

    def __init__(self, no_build, gateway=None):
        if not no_build:
            packages = ["-p", "vertice-gateway", "--examples"] + ([] if gateway else ["-p", "vertice-client", "--bins"])
            subprocess.run(["cargo", "build", "--release", *packages], cwd=ROOT, check=True)
        metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
        target = json.loads(subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True).stdout)["target_directory"]
        release = os.path.join(target, "release")
        self.gateway = os.path.abspath(gateway) if gateway else os.path.join(release, "vertice-gateway")
        self.sidecar = os.path.join(os.path.dirname(self.gateway), "vertice-sidecar")
        examples = os.path.join(release, "examples")
        self.upstream = os.path.join(examples, "bench-upstream")
        self.floor = os.path.join(examples, "bench-floor")
        self.clients = os.path.join(examples, "bench-clients")
        self.watchers = os.path.join(examples, "bench-watchers")
        self.replicas = os.path.join(examples, "bench-replicas")
        self.open = os.path.join(examples, "bench-open")
        self.registry = os.path.join(examples, "bench-registry")
        self.faulty = os.path.join(examples, "bench-faulty")

    def knows(self, setting):
        """Whether the gateway accepts these variables."""
        checked = subprocess.run([self.gateway, "check"], env=clean_env(setting), check=False, capture_output=True)
        return checked.returncode == 0


class Rig:
    """Starts servers in a temporary directory and ends them."""

    def __init__(self, directory, stack, programs, cores, proxy_core):
        self.directory, self.stack, self.programs = directory, stack, programs
        self.cores, self.proxy_core = cores, proxy_core
        self.count = 0
        self.upstream = self.spawn([programs.upstream], cores=None, stdout=subprocess.PIPE)
        self.upstream_port = int(self.upstream.stdout.readline())

    def upstream_cpu_seconds(self):
        """CPU time of the upstream so far."""
        return Contender("", self.upstream, 0, "").cpu_seconds()

    def cores_for(self, workers):
        """Where a proxy of so many workers runs: beside the load, or with it."""
        return self.proxy_core if workers == 1 else self.cores

    def spawn(self, command, cores, env=None, stdout=None, stdin=None):
        """Starts a program; it is ended when the rig ends."""
        pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        log = open(os.path.join(self.directory, f"log-{os.path.basename(command[0])}"), "ab")
        with log:
            child = subprocess.Popen(
                command, env=clean_env(env), cwd=self.directory, preexec_fn=pin, stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or log, stderr=log)
        self.stack.callback(end, child)
        return child

    def contenders(self, also, workers=1):
        """Every way to the upstream that can be had, ready and checked; the direct one first. And what there is to say of them."""
        found, notes = [Contender("direct", None, self.upstream_port, ""), floor(self, 0, workers)], []
        found += [self.gateway(name, program, workers=workers, setting=setting) for name, program, setting in self.lanes(also)]
        for contender in found:
            contender.wait()
        for name, start, is_anchor in OTHERS:
            if not installed(name):
                notes.append(f"{name} is not installed: measured without it")
                continue
            contender = start(self, free_port(), workers)
            try:
                if lacks := contender.wait():
                    notes.append(f"{contender.name} does not add {', '.join(lacks)}")
            except Unusable as error:
                if is_anchor:
                    raise
                end(contender.child)
                notes.append(f"{contender.name} is left out: {error}; its last words: {self.last_words(name)}")
                continue
            found.append(contender)
        return found, notes

    def last_words(self, program):
        """The last line that it wrote."""
        with open(os.path.join(self.directory, f"log-{program}"), encoding="utf-8", errors="replace") as log:
            return ([line.strip() for line in log if line.strip()] or ["none"])[-1]

    def lanes(self, also=()):
        """Names, programs and settings of the gateways to compare: both lanes where there are two."""
        lanes = [("vertice", self.programs.gateway, {})]
        if self.programs.knows(FULL_LANE):
            lanes.append(("vertice, full lane", self.programs.gateway, FULL_LANE))
        return lanes + [(*entry.split("=", 1), {}) for entry in also]

    def gateway(self, name, program, ports=None, store=None, workers=1, setting=None, stdout=None, instances=1):
        """A gateway on the embedded store, with the upstream registered through its API."""
        self.count += 1
        ports = ports or (free_port(), free_port())
        store = store or os.path.join(self.directory, f"store-{self.count}")
        env = gateway_env(ports, store) | {"VERTICE_GATEWAY__WORKERS": str(workers)} | (setting or {})
        child = self.spawn([program, "run"], self.cores_for(workers), env=env, stdout=stdout)
        gateway = Contender(name, child, ports[0], PREFIX)
        gateway.registry_port, gateway.store = ports[1], store
        wait_for(lambda: get(ports[0], "/health"), f"{name} to start", child=child)
        for instance in range(instances):
            register(ports[1], self.upstream_port, instance=f"i{instance}")
        return gateway

    def write(self, name, text):
        """Writes a file of the rig."""
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


# ---- processes ---------------------------------------------------------------------------------------------------------


def clean_env(extra):
    """An environment that configures nothing by accident."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **(extra or {})}


def gateway_env(ports, store):
    """The gateway's whole configuration."""
    return {
        "VERTICE_GATEWAY__LISTEN": f"127.0.0.1:{ports[0]}",
        "VERTICE_REGISTRY__LISTEN": f"127.0.0.1:{ports[1]}",
        "VERTICE_GATEWAY__WORKERS": "1",
        "VERTICE_STORE__PATH": store,
        "VERTICE_LOG__ACCESS": "off",
        "VERTICE_LOG__LEVEL": "warn",
    }


def sidecar_env(registry_port, service_port):
    """The sidecar's whole configuration."""
    return {
        "SERVICE_NAME": "bench_sidecar",
        "SERVICE_HOST": "127.0.0.1",
        "SERVICE_PORT": str(service_port),
        "REGISTRY_URL": f"http://127.0.0.1:{registry_port}",
    }


def register(port, upstream_port, instance="one", service="bench", host="127.0.0.1"):
    """Registers the upstream for as long as the rig runs."""
    body = {"service_name": service, "endpoint": f"http://{host}:{upstream_port}", "instance_id": instance, "ttl": 3600}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/register", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with OPENER.open(request, timeout=PATIENCE) as answer:
        if answer.status != 201:
            raise Unusable(f"registration was answered with {answer.status}")


def get(port, path):
    """The body of a 200; anything else raises."""
    return ask(port, path)[1]


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(child):
    """Ends a process that the rig started; tells how many seconds it took."""
    started = time.monotonic()
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return time.monotonic() - started
