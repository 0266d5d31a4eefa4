"""Puts a contender under load and tells what came of it: by the rig's own clients, or by wrk."""

import json
import resource
import subprocess

from contenders import PATIENCE, Unusable
from machine import cpu_steal, steal_since

WRK_SCRIPT = """
wrk.method = "%s"
wrk.path = "%s"
if %d > 0 then wrk.body = string.rep("x", %d) end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests":%%d,"micros":%%d,"broken":%%d,"took":{"p50":%%d,"p99":%%d,"p999":%%d,"max":%%d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
"""


def drive(rig, contender, connections, seconds, method="GET", path="/", body=0, fields="", rate=None, by_wrk=False):
    """One round of one contender: requests a second, percentiles in µs, and who took how much CPU time per request, in µs."""
    steal = cpu_steal()
    if by_wrk and rate is None and not fields:
        result = wrk(rig, contender, connections, seconds, method, path, body)
    else:
        result = own(rig, contender, connections, seconds, method, path, body, fields, rate)
    failed = result.get("refused", 0) + result["broken"]
    if failed or not result["requests"]:
        raise Unusable(f"{contender.name} failed {failed} of {result['requests']} requests")
    requests, cpu = result["requests"], result["cpu"]
    answer = {"rate": requests / result["micros"] * 1e6, **result["took"], "steal": steal_since(steal)}
    answer |= {name: micros / requests for name, micros in cpu.items()}
    # Shares of the time: of one core for the proxy of one worker, and of the core that load and upstream have together.
    answer |= {"proxy_busy": cpu["proxy"] / result["micros"], "load_busy": (cpu["load"] + cpu["upstream"]) / result["micros"]}
    return answer


def own(rig, contender, connections, seconds, method, path, body, fields, rate):
    """By `bench-clients`, which counts CPU time from when connections are up and warm."""
    plan = {
        "port": contender.port, "connections": connections, "seconds": seconds, "warm_seconds": 0.3 + connections / 5000, "rate": rate,
        "method": method, "path": contender.prefix + path, "fields": fields, "body_bytes": body,
        "watched": {"proxy": contender.pids(), "upstream": [rig.upstream.pid]},
    }
    done = subprocess.run([rig.programs.clients, json.dumps(plan)], check=False, capture_output=True, text=True, timeout=seconds + PATIENCE)
    if done.returncode:
        raise Unusable(f"{contender.name} could not be asked: {done.stderr.strip()}")
    return json.loads(done.stdout)


def wrk(rig, contender, connections, seconds, method, path, body):
    """By wrk; CPU time includes that of connecting, which is why it first connects for a moment unmeasured."""
    script = rig.write(f"wrk-{contender.name}.lua", WRK_SCRIPT % (method, contender.prefix + path, body, body))
    command = ["wrk", "-t1", f"-c{connections}", "-s", script, f"http://127.0.0.1:{contender.port}/"]
    subprocess.run([*command, "-d1s"], check=True, capture_output=True, timeout=PATIENCE)
    proxy, upstream, load = contender.cpu_seconds(), rig.upstream_cpu_seconds(), children_seconds()
    output = subprocess.run([*command, f"-d{seconds}s"], check=True, capture_output=True, text=True, timeout=seconds + PATIENCE).stdout
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Unusable(f"wrk gave no result: {output}")
    now = {"proxy": contender.cpu_seconds() - proxy, "upstream": rig.upstream_cpu_seconds() - upstream, "load": children_seconds() - load}
    return json.loads(line.removeprefix("RESULT ")) | {"cpu": {name: cpu * 1e6 for name, cpu in now.items()}}


def children_seconds():
    """CPU time of all ended children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
