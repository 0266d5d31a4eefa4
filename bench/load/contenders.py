"""What is compared: ways to the upstream, each a server that the rig configures, starts and ends.

All do the same work: they route /v2/bench/… to one upstream without that prefix, over kept-alive connections, add
X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and X-Request-ID, and log no requests.
"""

import glob
import json
import os
import subprocess
import time
import urllib.request
import zlib

from machine import children, installed, read

PREFIX = "/v2/bench"
PATIENCE = 20  # seconds for anything that should take far less
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy of the environment
KIB, MIB = 1024, 1024 * 1024

# What the upstream answers: path, bytes, whether in chunks.
ANSWERS = [("/1k", KIB, False), ("/64k", 64 * KIB, False), ("/1m", MIB, False), ("/chunked/1k", KIB, True), ("/chunked/64k", 64 * KIB, True)]
ADDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id")

NGINX_CONF = """
daemon off; worker_processes {workers}; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit; {user}
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; client_max_body_size 0;
  client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy; fastcgi_temp_path {dir}/nginx-f;
  uwsgi_temp_path {dir}/nginx-u; scgi_temp_path {dir}/nginx-s;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location /v2/bench/ {{
      proxy_pass http://bench/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-ID $request_id;
      proxy_buffers 8 64k; # twice as cheap as the default at 64 KiB
      proxy_max_temp_file_size 0; client_body_buffer_size 2m; # bodies stay off the disk
    }}
  }}
}}
"""

HAPROXY_CONF = """
global
  nbthread {workers}
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
  bind 127.0.0.1:{port} backlog 4096
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request replace-path /v2/[^/]+(/.*) \\1
  default_backend bench
backend bench
  server one 127.0.0.1:{upstream}
"""

CADDY_CONF = """
{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}
}}
http://:{port} {{
  bind 127.0.0.1
  handle_path /v2/bench/* {{
    reverse_proxy 127.0.0.1:{upstream} {{
      header_up X-Request-ID {{http.request.uuid}}
      transport http {{
        keepalive_idle_conns_per_host 2048
      }}
    }}
  }}
}}
"""

TRAEFIK_CONF = """
[http.routers.bench]
entryPoints = ["web"]
rule = "PathPrefix(`/v2/bench`)"
service = "bench"
middlewares = ["strip"]
[http.middlewares.strip.stripPrefix]
prefixes = ["/v2/bench"]
[[http.services.bench.loadBalancer.servers]]
url = "http://127.0.0.1:{upstream}"
"""

PINGAP_CONF = """
[basic]
threads = {workers}
log_level = "error"
[upstreams.bench]
addrs = ["127.0.0.1:{upstream}"]
[locations.bench]
upstream = "bench"
path = "/v2/bench"
rewrite = "^/v2/bench/(?<rest>.*)$ /$rest"
plugins = ["pingap:requestId"]
enable_reverse_proxy_headers = true
[servers.bench]
addr = "127.0.0.1:{port}"
threads = {workers}
locations = ["bench"]
"""


class Unusable(Exception):
    """Something that the rig needs is not there or does not work."""


class Contender:
    """A way to the upstream."""

    clients_max = 1_000_000

    def __init__(self, name, child, port, prefix):
        self.name, self.child, self.port, self.prefix = name, child, port, prefix

    def wait(self):
        """Waits until it serves, and checks it."""
        wait_for(lambda: ask(self.port, self.prefix + "/"), f"{self.name} to serve", child=self.child)
        return self.check()

    def check(self):
        """Tells which fields it does not add; anything else that differs from what the upstream answers raises."""
        if ask(self.port, self.prefix + "/")[1] != b"Hello, world\n":
            raise Unusable(f"{self.name} does not answer as the upstream does")
        for path, length, in_chunks in ANSWERS:
            fields, body = ask(self.port, self.prefix + path)
            if body != b"x" * length or (fields.get("Transfer-Encoding") == "chunked") != in_chunks:
                raise Unusable(f"{self.name} answers {path} with {len(body)} bytes and {dict(fields)}")
        for length in (KIB, MIB):
            body = bytes(range(256)) * (length // 256)
            if ask(self.port, self.prefix + "/body", body)[1] != f"{length} {zlib.adler32(body)}".encode():
                raise Unusable(f"{self.name} does not pass on {length} bytes as they are")
        line, *lines = ask(self.port, self.prefix + "/head")[1].decode().split("\r\n")
        names = [field.split(":", 1)[0].lower() for field in lines]
        if self.child and self.prefix and (line != "GET /head HTTP/1.1" or any(names.count(name) > 1 for name in ADDED)):
            raise Unusable(f"{self.name} sends {line} with {', '.join(names)}")
        return [name for name in ADDED if self.prefix and name not in names]

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


def ask(port, path, body=None):
    """Fields and body of a 200; anything else raises."""
    with OPENER.open(f"http://127.0.0.1:{port}{path}", body, timeout=PATIENCE) as answer:
        return answer.headers, answer.read()


def wait_for(condition, what, pause=0.02, patience=PATIENCE, child=None):
    """Calls it until it is true and does not raise; gives up when the process that it waits for has ended."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if condition():
                return
        except (OSError, Unusable):
            pass
        if child and child.poll() is not None:
            raise Unusable(f"waited for {what}, but it ended with {child.returncode}")
        if time.monotonic() > deadline:
            raise Unusable(f"waited {patience} s for {what} in vain")
        time.sleep(pause)


# ---- the others --------------------------------------------------------------------------------------------------------


def floor(rig, port, workers):
    """A forwarder of bytes; it chooses its port itself."""
    command = [rig.programs.floor, str(rig.upstream_port), str(workers)]
    child = rig.spawn(command, rig.cores_for(workers), stdout=subprocess.PIPE)
    return Contender("floor", child, int(child.stdout.readline()), "")


def nginx(rig, port, workers):
    """With buffers for large bodies."""
    user = "user root;" if os.geteuid() == 0 else ""
    conf = NGINX_CONF.format(dir=rig.directory, port=port, upstream=rig.upstream_port, user=user, workers=workers)
    path = rig.write("nginx.conf", conf)
    child = rig.spawn([installed("nginx"), "-c", path, "-p", rig.directory, "-e", "stderr"], rig.cores_for(workers))
    return Contender("nginx", child, port, PREFIX)


def haproxy(rig, port, workers):
    """As it is."""
    path = rig.write("haproxy.cfg", HAPROXY_CONF.format(port=port, upstream=rig.upstream_port, workers=workers))
    child = rig.spawn([installed("haproxy"), "-db", "-f", path], rig.cores_for(workers))
    contender = Contender("HAProxy", child, port, PREFIX)
    contender.clients_max = 8500  # it does not start with more connections than descriptors, and wants two for each
    return contender


def caddy(rig, port, workers):
    """As it is; it adds X-Forwarded-* by itself."""
    path = rig.write("Caddyfile", CADDY_CONF.format(port=port, upstream=rig.upstream_port))
    command = [installed("caddy"), "run", "--adapter", "caddyfile", "--config", path]
    return Contender("Caddy", rig.spawn(command, rig.cores_for(workers), env={"GOMAXPROCS": str(workers)}), port, PREFIX)


def envoy(rig, port, workers):
    """As it is; it adds X-Forwarded-For, X-Forwarded-Proto and X-Request-ID by itself."""
    path = rig.write("envoy.json", json.dumps(envoy_conf(port, rig.upstream_port)))
    command = [installed("envoy"), "-c", path, "--concurrency", str(workers), "--disable-hot-restart", "-l", "error"]
    return Contender("Envoy", rig.spawn(command, rig.cores_for(workers)), port, PREFIX)


def envoy_conf(port, upstream_port):
    """One listener, one route, one cluster."""
    def address(of):
        return {"socket_address": {"address": "127.0.0.1", "port_value": of}}

    types = "type.googleapis.com/envoy.extensions.filters"
    route = {
        "match": {"prefix": PREFIX + "/"},
        "route": {"cluster": "bench", "prefix_rewrite": "/"},
        "request_headers_to_add": [{"header": {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"}}],
    }
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": "bench", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"endpoint": {"address": address(upstream_port)}}
    limits = {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]}
    cluster = {
        "name": "bench", "type": "STATIC", "connect_timeout": "1s", "circuit_breakers": limits,
        "load_assignment": {"cluster_name": "bench", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"name": "bench", "address": address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def traefik(rig, port, workers):
    """As it is; it has no request ids."""
    path = rig.write("traefik.toml", TRAEFIK_CONF.format(upstream=rig.upstream_port))
    command = [
        installed("traefik"), f"--entryPoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={path}",
        "--serversTransport.maxIdleConnsPerHost=2048", "--log.level=ERROR", "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false",
    ]
    return Contender("Traefik", rig.spawn(command, rig.cores_for(workers), env={"GOMAXPROCS": str(workers)}), port, PREFIX)


def pingap(rig, port, workers):
    """As it is."""
    path = rig.write("pingap.toml", PINGAP_CONF.format(port=port, upstream=rig.upstream_port, workers=workers))
    return Contender("pingap", rig.spawn([installed("pingap"), "-c", path], rig.cores_for(workers)), port, PREFIX)


# Program, how it is started, whether it is an anchor: one that ratios are taken to, which must do all that is compared.
OTHERS = [
    ("nginx", nginx, True),
    ("haproxy", haproxy, True),
    ("caddy", caddy, False),
    ("envoy", envoy, False),
    ("traefik", traefik, False),
    ("pingap", pingap, False),
]
