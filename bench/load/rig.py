"""What is measured, and what it is measured with: servers in a temporary directory, ended when the rig ends."""

import contextlib
import glob
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

from machine import ROOT, children, read

PREFIX = "/v2/bench"
PATIENCE = 20  # seconds for anything that should take far less
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy of the environment

NGINX_CONF = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit; {user}
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s;
  client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy; fastcgi_temp_path {dir}/nginx-f;
  uwsgi_temp_path {dir}/nginx-u; scgi_temp_path {dir}/nginx-s;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location /v2/bench/ {{
      proxy_pass http://bench/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Request-ID $request_id;
      proxy_buffers 8 64k; # twice as cheap as the default at 64 KiB
    }}
  }}
}}
"""

HAPROXY_CONF = """
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 1s
  timeout client 75s
  timeout server 30s
  http-reuse always
  unique-id-format %[uuid()]
  unique-id-header X-Request-ID
frontend front
  bind 127.0.0.1:{port}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request replace-path /v2/[^/]+(/.*) \\1
  default_backend bench
backend bench
  server one 127.0.0.1:{upstream}
"""

class Unusable(Exception):
    """Something that the rig needs is not there or does not work."""


class Programs:
    """Paths of what is measured and what it is measured with."""

    def __init__(self, no_build):
        if not no_build:
            build = ["cargo", "build", "--release", "-p", "vertice-gateway", "-p", "vertice-client", "--bins", "--examples"]
            subprocess.run(build, cwd=ROOT, check=True)
        metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
        target = json.loads(subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True).stdout)["target_directory"]
        release = os.path.join(target, "release")
        self.gateway = os.path.join(release, "vertice-gateway")
        self.sidecar = os.path.join(release, "vertice-sidecar")
        self.upstream = os.path.join(release, "examples", "bench-upstream")
        self.watchers = os.path.join(release, "examples", "bench-watchers")
        self.replicas = os.path.join(release, "examples", "bench-replicas")
        self.open = os.path.join(release, "examples", "bench-open")
        self.faulty = os.path.join(release, "examples", "bench-faulty")
        self.nginx = find("nginx")
        self.haproxy = find("haproxy")


def find(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        print(f"{name} is not installed (Debian: apt install {name}): measured without it")
    return path


class Rig:
    """Starts servers in a temporary directory and ends them."""

    def __init__(self, directory, stack, programs, cores, proxy_core):
        self.directory, self.stack, self.programs = directory, stack, programs
        self.cores, self.proxy_core = cores, proxy_core
        self.count = 0
        upstream = self.spawn([programs.upstream], cores=None, stdout=subprocess.PIPE)
        self.upstream_port = int(upstream.stdout.readline())

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

    def contenders(self, also):
        """Every proxy that can be had, ready to serve; the direct way first."""
        found = [Contender("direct", None, self.upstream_port, "")]
        found.append(self.gateway("vertice", self.programs.gateway))
        found += [self.gateway(*entry.split("=", 1)) for entry in also]
        if self.programs.nginx:
            found.append(self.nginx())
        if self.programs.haproxy:
            found.append(self.haproxy())
        for contender in found:
            contender.wait()
        return found

    def gateway(self, name, program, ports=None, store=None):
        """A gateway on the embedded store, with the upstream registered through its API."""
        self.count += 1
        ports = ports or (free_port(), free_port())
        store = store or os.path.join(self.directory, f"store-{self.count}")
        child = self.spawn([program, "run"], self.proxy_core, env=gateway_env(ports, store))
        gateway = Contender(name, child, ports[0], PREFIX)
        gateway.registry_port, gateway.store = ports[1], store
        wait_for(lambda: get(ports[0], "/health"), f"{name} to start")
        register(ports[1], self.upstream_port)
        return gateway

    def nginx(self):
        """nginx with one worker."""
        port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        conf = NGINX_CONF.format(dir=self.directory, port=port, upstream=self.upstream_port, user=user)
        path = self.write("nginx.conf", conf)
        child = self.spawn([self.programs.nginx, "-c", path, "-p", self.directory, "-e", "stderr"], self.proxy_core)
        return Contender("nginx", child, port, PREFIX)

    def haproxy(self):
        """HAProxy with one thread."""
        port = free_port()
        path = self.write("haproxy.cfg", HAPROXY_CONF.format(port=port, upstream=self.upstream_port))
        child = self.spawn([self.programs.haproxy, "-db", "-f", path], self.proxy_core)
        haproxy = Contender("HAProxy", child, port, PREFIX)
        haproxy.clients_max = 8500  # it does not start with more connections than descriptors, and wants two for each
        return haproxy

    def write(self, name, text):
        """Writes a file of the rig."""
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Contender:
    """A way to the upstream."""

    clients_max = 1_000_000

    def __init__(self, name, child, port, prefix):
        self.name, self.child, self.port, self.prefix = name, child, port, prefix

    def wait(self):
        """Waits until it serves, and checks that it does what is to be measured."""
        wait_for(lambda: get(self.port, self.prefix + "/"), f"{self.name} to serve")
        if get(self.port, self.prefix + "/") != b"Hello, world\n" or len(get(self.port, self.prefix + "/64k")) != 65536:
            raise Unusable(f"{self.name} does not answer as the upstream does")

    def pids(self):
        """The process and its children."""
        return [self.child.pid, *children(self.child.pid)] if self.child else []

    def cpu_seconds(self):
        """CPU time of all its threads so far."""
        tasks = [task for pid in self.pids() for task in glob.glob(f"/proc/{pid}/task/*/schedstat")]
        return sum(int(read(task).split()[0]) for task in tasks) / 1e9

    def user_and_system(self):
        """User and system time so far, in ticks: too coarse for one round, good for a share."""
        fields = [read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split() for pid in self.pids()]
        return [sum(int(field[at]) for field in fields) for at in (11, 12)]

    def rss_kib(self):
        """Resident memory of all its processes; pages that processes share count once for each."""
        lines = [line for pid in self.pids() for line in read(f"/proc/{pid}/status").splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


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
    with OPENER.open(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read()


def wait_for(condition, what, pause=0.02, patience=PATIENCE):
    """Calls it until it is true and does not raise."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if condition():
                return
        except (OSError, Unusable):
            pass
        if time.monotonic() > deadline:
            raise Unusable(f"waited {patience} s for {what} in vain")
        time.sleep(pause)


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
