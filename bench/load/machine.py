"""The machine that is measured on: its load, its limits, and what /proc tells of processes."""

import contextlib
import glob
import os
import platform
import resource
import shutil
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load_average():
    """Over the last minute."""
    return float(read("/proc/loadavg").split()[0])


def wait_until_quiet(seconds):
    """Waits for others to finish; tells whether they did."""
    deadline = time.monotonic() + seconds
    while load_average() >= 0.6 and time.monotonic() < deadline:
        time.sleep(2)
    return load_average() < 0.6


def cpu_steal():
    """Ticks that the hypervisor gave to others, and all ticks."""
    ticks = [int(tick) for tick in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


def steal_since(before):
    """The share stolen since then."""
    after = cpu_steal()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def tcp_trouble():
    """Connections that a full queue turned away, and retransmissions: both cost a client a second or so, and are no proxy's work."""
    names, values = [line.split() for line in read("/proc/net/netstat").splitlines() if line.startswith("TcpExt:")]
    counters = dict(zip(names, values))
    return [int(counters[name]) for name in ("ListenOverflows", "TCPTimeouts")]


def raise_file_limit():
    """Thousands of connections want thousands of descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536, hard))


def children(pid):
    """Direct and indirect children."""
    direct = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            direct += [int(child) for child in read(path).split()]
    return direct + [below for child in direct for below in children(child)]


def read(path):
    """A small file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def commit():
    """The commit that was measured."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(describe, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip() or "unknown"


def cpu_name():
    """The processor."""
    names = [line.split(":", 1)[1].strip() for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed(name):
    """Where the program is."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def versions():
    """What is compared with what."""
    texts = []
    for command in (["nginx", "-v"], ["haproxy", "-v"], ["caddy", "version"], ["envoy", "--version"], ["traefik", "version"],
                    ["pingap", "--version"], ["wrk", "-v"], ["redis-server", "-v"]):
        if path := installed(command[0]):
            done = subprocess.run([path, *command[1:]], check=False, capture_output=True, text=True)
            words = (done.stdout + done.stderr).split("\n", 1)[0].split()
            texts.append(" ".join(words[:3]).removeprefix("nginx version: "))
    return ", ".join(texts)
