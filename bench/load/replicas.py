"""Several gateways that share one Redis: how fast they are in step, what Redis costs, and what faults are felt.

Nothing is pinned to a core: gateways, Redis, load and upstream share all of them. What a gateway or Redis uses is the
kernel's account of its own threads; what Redis counts itself is from its INFO.
"""

import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time

from machine import read
from report import spread
from rig import PATIENCE, Contender, Unusable, end, free_port, gateway_env, get, wait_for

REPLICAS = 5
NAMES = "ABCDE"
LONG = 360  # seconds for what may take minutes


def replicas(rig, options, report):
    """Every scenario that the options do not exclude, each with gateways and a Redis of its own."""
    if shutil.which("redis-server") is None:
        raise Unusable("redis-server is not installed (Debian: apt install redis-server)")
    report.line(f"* replicas: 1 worker each; they, Redis (appendfsync everysec), load and upstream share all {len(rig.cores)} cores")
    for scenario in (propagation, durability, recovery, scale, faults):
        if not options.scenario or any(part in scenario.__name__ for part in options.scenario):
            scenario(rig, options, report)


# ---- propagation ---------------------------------------------------------------------------------------------------------


def propagation(rig, options, report):
    """Register at A, ask B to E until they route there."""
    count = 50 if options.quick else 400
    rows = []
    with Cluster(rig, REPLICAS) as cluster:
        for beats in (0, 500):
            result = cluster.generate("propagate", count, beats, cluster.registries(), cluster.routers()[1:])
            demand(result["register"], count)
            demand(result["beats"])
            name = f"beside {beats} heartbeats/s" if beats else "at rest"
            rows.append([name, str(count * (REPLICAS - 1)), *millis(result["from_request"]), *millis(result["from_201"]),
                         *millis(result["register"]["took"])[:2]])
    head = ["", "samples", "p50 ms from the request", "p99", "max", "p50 ms from its 201", "p99", "max", "the 201: p50 ms", "p99"]
    report.table("Registered on A → routable on B to E (goal: p99 < 10 ms)", head, rows)


# ---- durability ----------------------------------------------------------------------------------------------------------


def durability(rig, options, report):
    """Registrations that are in the store before their 201, in Redis and in the embedded store, in interleaved rounds."""
    count = 100 if options.quick else 500
    loads = {"one after another": 0, "beside 100/s": 100}
    merged = {}
    with Cluster(rig, 1) as alone, Cluster(rig, REPLICAS) as shared, Cluster(rig, 1, has_redis=False) as embedded:
        stores = {"Redis, 1 replica": alone, f"Redis, {REPLICAS} replicas": shared, "embedded": embedded}
        for _ in range(options.rounds):
            for name, background in loads.items():
                for store, cluster in stores.items():
                    result = cluster.generate("register", count, background, cluster.registries()[:1])
                    demand(result["own"], count)
                    demand(result["beside"])
                    merged.setdefault((name, store), []).append(result["own"])
    rows = []
    for (name, store), results in merged.items():
        durable, requests = (sum(r[key] for r in results) for key in ("durable", "requests"))
        worst = [spread([r["took"][key] / 1000 for r in results]) for key in ("p50", "p99")]
        rows.append([f"{store}, {name}", f"{durable} of {requests}", *worst, f"{max(r['took']['max'] for r in results) / 1000:.1f}"])
    head = ["", "durable", "p50 ms, median of rounds (min–max)", "p99 ms, likewise", "max ms"]
    report.table(f"Durable registration (goal: p99 < 3 ms); {options.rounds} rounds of {count}", head, rows)


# ---- recovery ------------------------------------------------------------------------------------------------------------


def recovery(rig, options, report):
    """Redis is killed and started again with its data; registrations go on meanwhile."""
    pauses = [3] if options.quick else [2, 5, 10] * 2 + [40]
    rows = []
    with Cluster(rig, REPLICAS) as cluster:
        for turn, pause in enumerate(pauses):
            rows.append(recover(cluster, turn, pause))
            cluster.settle()
    head = ["Redis away, s", "registered meanwhile, not durable", "slowest 201, ms", "ms from its first PONG: first replica closed",
            "all closed", "all in Redis", "all following"]
    report.table(f"Redis killed and started again, {REPLICAS} replicas", head, rows)


def recover(cluster, turn, pause):
    """One row of the table."""
    cluster.redis.kill()
    killed = time.monotonic()
    keys, slowest = [], 0
    for nth in range(20):
        service = f"meanwhile_{turn}_{nth}"
        started = time.monotonic()
        status, answer = post(cluster.members[nth % REPLICAS].registry_port, "/register", {
            "service_name": service, "instance_id": "one", "endpoint": f"http://127.0.0.1:{cluster.upstream}", "ttl": 3600})
        slowest = max(slowest, time.monotonic() - started)
        if status != 201:
            raise Unusable(f"a registration without Redis was answered with {status}: {answer}")
        # The first may be on their way while Redis dies.
        if not answer["durable"]:
            keys.append(f"services:{service}:i:one")
        time.sleep(max(0, killed + (nth + 1) * pause / 20 - time.monotonic()))
    cluster.redis.start()
    back = cluster.redis.wait()
    first = all_closed = stored = None
    deadline = back + LONG
    while all_closed is None or stored is None:
        closed = sum(health(member)["circuit_breaker"] == "closed" for member in cluster.members)
        first = first or (time.monotonic() if closed else None)
        all_closed = all_closed or (time.monotonic() if closed == REPLICAS else None)
        if stored is None and cluster.redis.command("EXISTS", *keys) == len(keys):
            stored = time.monotonic()
        if time.monotonic() > deadline:
            raise Unusable(f"{LONG} s after Redis was back {closed} of {REPLICAS} breakers are closed; all stored: {stored is not None}")
        time.sleep(0.002)
    following = cluster.settle()
    times = [f"{(at - back) * 1000:.0f}" for at in (first, all_closed, stored, max(following, all_closed))]
    return [str(pause), f"{len(keys)} of 20", f"{slowest * 1000:.0f}", *times]


# ---- scale ---------------------------------------------------------------------------------------------------------------


def scale(rig, options, report):
    """Many services: what registering them takes, what their heartbeats cost, and how soon another replica knows them all."""
    services, instances = (1000 if options.quick else 10_000), 10
    seconds = 12 if options.quick else 40
    one, two = (scale_of(rig, count, services, instances, seconds) for count in (1, 2))
    rows = [[name, figure, of_two] for (name, figure), (_, of_two) in zip(one, two)]
    title = f"{services} services × {instances} instances, TTL 60 s, a heartbeat each 30 s ({services * instances / 30:.0f}/s) for {seconds} s"
    report.table(title, ["", "1 replica", "2 replicas"], rows)


def scale_of(rig, count, services, instances, seconds):
    """One column of the table, with the names of its rows."""
    total = services * instances
    with Cluster(rig, count) as cluster:
        empty = Usage(cluster)
        with cluster.generator("fleet", services, instances, 64, cluster.registries()) as fleet:
            filled = fleet.result(LONG)
            for member in cluster.members:
                wait_for(lambda: complete(member, services, total), f"{member.name} to know all", patience=60)
            fill = filled["fill"]
            demand(fill, total)
            time.sleep(3)
            full = Usage(cluster)
            fleet.ask()
            time.sleep(seconds)
            beats, after = fleet.ask()["beats"], Usage(cluster)
            demand(beats)
            span = after.at - full.at
            started = time.monotonic()
            newcomer = cluster.start()
            wait_for(lambda: answers(newcomer), "another replica to answer", pause=0.005)
            accepting = time.monotonic() - started
            known = metrics(newcomer)["registry_active_instances"]
            wait_for(lambda: complete(newcomer, services, total), "another replica to know all", pause=0.01, patience=60)
            resync = time.monotonic() - started
            sweep = cluster.generate("sweep", services, 16, [newcomer.port])
            demand(sweep, services)
            time.sleep(1)
            reconcile = {member.name: reconciles(member) for member in cluster.members}
            rewritten = flush(cluster, services, total)
            demand(fleet.ask()["beats"])
        per_second = lambda key: (after.info[key] - full.info[key]) / span
        return [
            ("registering all: s", f"{filled['micros'] / 1e6:.1f}"),
            ("… registrations/s (64 connections)", f"{total / filled['micros'] * 1e6:.0f}"),
            ("… p50, p99, max ms", ", ".join(millis(fill["took"]))),
            ("… durable", f"{fill['durable']} of {fill['requests']}"),
            ("heartbeats/s", f"{beats['requests'] / span:.0f}"),
            ("… p50, p99, max ms", ", ".join(millis(beats["took"]))),
            ("Redis: commands/s", f"{per_second('total_commands_processed'):.0f}"),
            ("… CPU, % of a core", f"{(after.redis_cpu - full.redis_cpu) / span:.1%}"),
            ("… KiB/s received", f"{per_second('total_net_input_bytes') / 1024:.0f}"),
            ("… KiB/s sent", f"{per_second('total_net_output_bytes') / 1024:.0f}"),
            ("… KiB/s written to disk", f"{(after.redis_written - full.redis_written) / span / 1024:.0f}"),
            ("CPU of each gateway, % of a core", ", ".join(f"{(b - a) / span:.1%}" for a, b in zip(full.cpu, after.cpu))),
            ("comparison with Redis on A: times, mean s", reconcile["A"]),
            ("another replica started: ms until it answers", f"{accepting * 1000:.0f}"),
            ("… instances it knows then", f"{known:.0f}"),
            ("… until all is routable, ms", f"{resync * 1000:.0f}"),
            ("… its comparisons: times, mean s", reconcile[newcomer.name]),
            (f"FLUSHALL with {count + 1} replicas: until all is written again, s", f"{rewritten:.1f}"),
            ("RSS of gateway A, KiB per instance", f"{(full.rss[0] - empty.rss[0]) / total:.2f}"),
            ("… MiB in all, after the heartbeats", f"{after.rss[0] / 1024:.0f}"),
            ("Redis: used memory, KiB per instance", f"{(full.info['used_memory'] - empty.info['used_memory']) / total / 1024:.2f}"),
            ("… RSS, MiB in all", f"{full.redis_rss / 1024:.0f}"),
        ]


# With the processes that rewrite its log.
REDIS_CPU = ("used_cpu_sys", "used_cpu_user", "used_cpu_sys_children", "used_cpu_user_children")


class Usage:
    """What everybody has used so far."""

    def __init__(self, cluster):
        self.at = time.monotonic()
        self.cpu = [member.cpu_seconds() for member in cluster.members]
        self.rss = [member.rss_kib() for member in cluster.members]
        self.redis_rss = cluster.redis.server.rss_kib()
        self.redis_written = written(cluster.redis.server.child.pid)
        self.info = cluster.redis.info()
        self.redis_cpu = sum(value for name, value in self.info.items() if name in REDIS_CPU)


def written(pid):
    """Bytes that a process had written to disk, as far as /proc may be asked."""
    lines = read(f"/proc/{pid}/io").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def complete(member, services, instances):
    """Whether a replica knows them all."""
    wanted = {"registry_active_services": services, "registry_active_instances": instances}
    found = metrics(member)
    return all(found.get(name) == value for name, value in wanted.items())


def flush(cluster, services, instances):
    """Redis loses everything; how many seconds until the replicas have written it again."""
    started = time.monotonic()
    cluster.redis.command("FLUSHALL")

    def is_back():
        # Each instance has a key, and each service two: how the predecessor reads it, and which instances it has.
        keys, names = cluster.redis.command("DBSIZE"), cluster.redis.command("SCARD", "vx:names")
        return names == services and keys >= instances + 2 * services

    wait_for(is_back, "everything to be written again", pause=0.05, patience=120)
    return time.monotonic() - started


def reconciles(member):
    """How often it compared everything with Redis, and how long that took."""
    found = metrics(member)
    times = found.get("vertice_store_reconcile_seconds_count", 0)
    return f"{times:.0f}, {found['vertice_store_reconcile_seconds_sum'] / times:.2f}" if times else "0"


# ---- faults --------------------------------------------------------------------------------------------------------------


def faults(rig, options, report):
    """A steady load, and what of it fails while things break."""
    def redis_killed(cluster):
        cluster.redis.kill()
        time.sleep(3)
        cluster.redis.start()

    def redis_stopped(cluster):
        os.kill(cluster.redis.server.child.pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(cluster.redis.server.child.pid, signal.SIGCONT)

    def redis_flushed(cluster):
        cluster.redis.command("FLUSHALL")
        time.sleep(3)

    def gateways_killed(names):
        def kill(cluster):
            for name in names:
                cluster.kill(name)
            time.sleep(3)
            for name in names:
                cluster.restart(name)
        return kill

    injected = {
        "none, for 5 s": lambda cluster: time.sleep(5),
        "Redis killed, started after 3 s": redis_killed,
        "Redis stopped (SIGSTOP) for 5 s": redis_stopped,
        "FLUSHALL": redis_flushed,
        "gateway E killed, started after 3 s": gateways_killed("E"),
        "D and E": gateways_killed("DE"),
        "B, C, D and E": gateways_killed("BCDE"),
    }
    rows = []
    with Cluster(rig, REPLICAS) as cluster, cluster.generator("steady", cluster.registries(), cluster.routers()) as load:
        load.expect("ready")
        for _ in range(1 if options.quick else 2):
            for name, fault in injected.items():
                load.ask()
                fault(cluster)
                cluster.settle()
                time.sleep(2)
                rows.append(fault_row(name, load.ask()))
    head = ["", "requests through A", "failed", "p99 ms", "max", "requests through all in turn", "failed",
            "in flight on a killed one", "p99 ms", "max", "heartbeats", "failed", "registrations", "failed", "not durable",
            "slowest, ms", "why"]
    report.table(f"Failed requests beside faults (goal: 0), {REPLICAS} replicas", head, rows)


def fault_row(name, result):
    """One row of the table."""
    row = [name]
    for part in ("one", "all"):
        tally = result[part]
        row += [str(tally["requests"]), str(tally["failed"])] + ([str(tally["in_flight"])] if part == "all" else [])
        row += millis(tally["took"])[1:]
    if result["one"]["in_flight"]:
        raise Unusable("replica A died of itself")
    beats, churn = result["beats"], result["churn"]
    row += [str(beats["requests"]), str(beats["failed"]), str(churn["requests"]), str(churn["failed"])]
    answered = churn["requests"] - churn["failed"] - churn["in_flight"]
    row += [str(answered - churn["durable"]), millis(churn["took"])[2]]
    row.append("; ".join(f"{part}: {tally['why']}" for part, tally in result.items() if tally["why"]))
    return row


# ---- servers -------------------------------------------------------------------------------------------------------------


class Cluster:
    """Gateways that share one Redis, ended at the end of the `with`."""

    def __init__(self, rig, count, has_redis=True):
        self.rig, self.upstream = rig, rig.upstream_port
        self.redis = Redis(rig) if has_redis else None
        self.members = []
        for _ in range(count):
            self.start()

    def __enter__(self):
        try:
            self.settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for member in self.members:
            end(member.child)
        if self.redis:
            end(self.redis.server.child)

    def start(self):
        """Another gateway."""
        member = Contender(NAMES[len(self.members)], None, free_port(), "")
        member.registry_port = free_port()
        self.members.append(member)
        self.spawn(member)
        return member

    def spawn(self, member):
        """Starts a gateway where it was or will be."""
        store = os.path.join(self.rig.directory, f"store-{id(self)}-{member.name}")
        env = {**gateway_env((member.port, member.registry_port), store), "REPLICA_ID": member.name}
        if self.redis:
            env |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.redis.port)}
        member.child = self.rig.spawn([self.rig.programs.gateway, "run"], self.rig.cores, env=env)

    def settle(self):
        """Waits until every gateway answers and follows the others; tells when."""
        for member in self.members:
            wait_for(lambda: answers(member), f"{member.name} to start", pause=0.005)
            if self.redis:
                wait_for(lambda: is_following(member), f"{member.name} to follow the others", pause=0.005, patience=90)
        return time.monotonic()

    def kill(self, name):
        """A process ends without a word."""
        child = self.members[NAMES.index(name)].child
        child.kill()
        child.wait()

    def restart(self, name):
        """It is started again."""
        self.spawn(self.members[NAMES.index(name)])

    def registries(self):
        """Ports."""
        return [member.registry_port for member in self.members]

    def routers(self):
        """Ports."""
        return [member.port for member in self.members]

    def generate(self, kind, *arguments):
        """The result of a load that ends by itself."""
        with self.generator(kind, *arguments) as load:
            return load.result(LONG)

    def generator(self, kind, *arguments):
        """A load that ends with the `with`."""
        words = [",".join(map(str, a)) if isinstance(a, list) else str(a) for a in arguments]
        if kind != "sweep":
            words.insert(0, str(self.upstream))
        return Load(self.rig.spawn(
            [self.rig.programs.replicas, kind, *words], self.rig.cores, stdout=subprocess.PIPE, stdin=subprocess.PIPE))


class Load:
    """A running load generator."""

    def __init__(self, child):
        self.child = child

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        end(self.child)

    def line(self, patience):
        """Its next line."""
        ready, _, _ = select.select([self.child.stdout], [], [], patience)
        line = self.child.stdout.readline() if ready else b""
        if not line:
            raise Unusable("the load gave up" if ready else f"the load said nothing for {patience} s")
        return line.decode()

    def expect(self, word):
        """Waits for a line that is a mere word."""
        line = self.line(PATIENCE).strip()
        if line != word:
            raise Unusable(f"the load said {line!r} instead of {word!r}")

    def result(self, patience=PATIENCE):
        """Its next line, read."""
        return json.loads(self.line(patience))

    def ask(self):
        """What happened since it was last asked."""
        self.child.stdin.write(b"\n")
        self.child.stdin.flush()
        return self.result()


class Redis:
    """A redis-server with its data in a directory of its own."""

    def __init__(self, rig):
        self.rig, self.port = rig, free_port()
        self.directory = os.path.join(rig.directory, f"redis-{self.port}")
        os.mkdir(self.directory)
        self.server = None
        self.start()
        self.wait()

    def start(self):
        """Starts it, with the data it had."""
        child = self.rig.spawn(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory,
                                "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""], self.rig.cores)
        self.server = Contender("redis", child, self.port, "")

    def kill(self):
        """It ends without a word."""
        self.server.child.kill()
        self.server.child.wait()

    def wait(self):
        """Waits for the first PONG; tells when it came."""
        wait_for(lambda: self.command("PING") == "PONG", "Redis to answer", pause=0.001)
        return time.monotonic()

    def info(self):
        """The numbers of INFO."""
        pairs = (line.split(":", 1) for line in self.command("INFO", "everything").splitlines() if ":" in line)
        return {name: float(value) for name, value in pairs if value.replace(".", "", 1).isdigit()}

    def command(self, *words):
        """Its answer to a command: a string or a number."""
        words = [word.encode() for word in words]
        text = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection, connection.makefile("rb") as answer:
            connection.sendall(text)
            kind, rest = (line := answer.readline())[:1], line[1:].strip().decode()
            if kind == b"$":
                return answer.read(int(rest)).decode()
            if kind not in b"+:" or not kind:
                raise Unusable(f"Redis answered {line!r}")
            return int(rest) if kind == b":" else rest


# ---- asking gateways -----------------------------------------------------------------------------------------------------


def health(member):
    """What a gateway says of its health."""
    return json.loads(get(member.registry_port, "/health"))


def answers(member):
    """Whether it does, on both listeners."""
    return health(member) and get(member.port, "/health")


def is_following(member):
    """Whether it hears of the others' changes as they happen."""
    redis = json.loads(get(member.registry_port, "/gateway/status"))["store"]["redis"]
    return redis and redis["following"] and health(member)["circuit_breaker"] == "closed"


def metrics(member):
    """Metrics of the registry that have no labels."""
    lines = get(member.registry_port, "/metrics").decode().splitlines()
    return {name: float(value) for name, value in (line.split(" ")[:2] for line in lines if not line.startswith("#") and "{" not in line)}


def post(port, path, body):
    """Status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def demand(tally, count=None):
    """Nothing of a load may have failed that nothing disturbed."""
    wrong = tally["failed"] or tally["in_flight"] or tally["moved"]
    if wrong or (count is not None and tally["requests"] != count):
        raise Unusable(f"of {tally['requests']} requests {tally['failed']} failed: {tally['why'] or tally}")


def millis(percentiles):
    """p50, p99 and the largest, in milliseconds."""
    return [f"{percentiles[key] / 1000:.2f}" for key in ("p50", "p99", "max")]
