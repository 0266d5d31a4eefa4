"""Proxies side by side, in interleaved rounds: CPU per request, throughput, percentiles; as fast as they can, and at a rate."""

import dataclasses
import statistics

from contenders import KIB, MIB, Unusable
from drive import drive
from machine import cpu_steal, load_average, steal_since, tcp_trouble
from report import ratios, spread
from rig import end

FULL = 0.97  # a core that is busier is taken to be full


@dataclasses.dataclass
class Scenario:
    """What is asked, by how many, and of how many workers."""

    what: str
    path: str
    moved: int  # bytes of the bodies
    connections: int
    method: str = "GET"
    body: int = 0
    workers: int = 1
    at_half: bool = False  # at half of the rate that nginx reaches, instead of as fast as they can

    @property
    def name(self):
        """As it is shown and chosen."""
        half = ", at half of nginx's rate" if self.at_half else ""
        return f"{self.what}, c={self.connections}{half}, {self.workers} worker{'s' if self.workers > 1 else ''}"


def get_scenario(what, path, moved, connections, **other):
    """One that asks for something."""
    return Scenario(what, path, moved, connections, **other)


def post_scenario(what, body, connections, **other):
    """One that sends something and is answered with 13 bytes."""
    return Scenario(what, "/", body, connections, method="POST", body=body, **other)


SMALL, KIB_1, KIB_64 = ("GET 13 B", "/", 13), ("GET 1 KiB", "/1k", KIB), ("GET 64 KiB", "/64k", 64 * KIB)
MIB_1 = ("GET 1 MiB", "/1m", MIB)
CHUNKED_1, CHUNKED_64 = ("chunked 1 KiB", "/chunked/1k", KIB), ("chunked 64 KiB", "/chunked/64k", 64 * KIB)
POST_1, POST_M = ("POST 1 KiB", KIB), ("POST 1 MiB", MIB)

CORE = [
    get_scenario(*SMALL, 32),
    get_scenario(*SMALL, 256),
    get_scenario(*KIB_1, 32),
    get_scenario(*KIB_64, 32),
    get_scenario(*CHUNKED_1, 32),
    post_scenario(*POST_1, 32),
    get_scenario(*SMALL, 32, at_half=True),
]
FULL_AXES = [
    *[get_scenario(*SMALL, connections) for connections in (8, 32, 256, 1000)],
    *[get_scenario(*KIB_1, connections) for connections in (32, 256)],
    *[get_scenario(*what, 32) for what in (KIB_64, MIB_1, CHUNKED_1, CHUNKED_64)],
    post_scenario(*POST_1, 32),
    post_scenario(*POST_M, 32),
    *[get_scenario(*SMALL, connections, at_half=True) for connections in (32, 256)],
    *[get_scenario(*what, connections, workers=2) for what in (SMALL, KIB_1) for connections in (32, 256)],
    get_scenario(*SMALL, 32, workers=2, at_half=True),
]
CROSSED = [
    scenario
    for workers in (1, 2)
    for connections in (8, 32, 256, 1000)
    for scenario in (
        *[get_scenario(*what, connections, workers=workers) for what in (SMALL, KIB_1, KIB_64, MIB_1, CHUNKED_1, CHUNKED_64)],
        *[post_scenario(*what, connections, workers=workers) for what in (POST_1, POST_M)],
        get_scenario(*SMALL, connections, workers=workers, at_half=True),
    )
]
AXES = {"core": CORE, "full": FULL_AXES, "crossed": CROSSED}


def load(rig, options, report):
    """Every scenario that is wanted; contenders start anew for each number of workers."""
    wanted = [s for s in AXES[options.axes] if not options.scenario or any(part in s.name for part in options.scenario)]
    for workers in sorted({scenario.workers for scenario in wanted}):
        contenders, notes = rig.contenders(options.also, workers)
        for note in notes:
            report.line(f"* {note}")
        compared = Compared(rig, contenders, options, report)
        for scenario in wanted:
            if scenario.workers == workers:
                try:
                    compared.measure(scenario)
                except Unusable as error:
                    report.failure(f"{scenario.name}: {error}")
        for contender in contenders:
            if contender.child:
                end(contender.child)


class Compared:
    """Contenders with the same number of workers."""

    def __init__(self, rig, contenders, options, report):
        self.rig, self.contenders, self.options, self.report = rig, contenders, options, report
        self.saturation = None  # requests a second of the first anchor, GET 13 B, c=32

    def measure(self, scenario):
        """All rounds; each begins with another contender than the one before."""
        rate = self.half_rate() if scenario.at_half else None
        steal, trouble = cpu_steal(), tcp_trouble()
        shares = {c.name: c.user_and_system() for c in self.contenders}
        rounds = []
        for turn in range(self.options.rounds):
            first = turn % len(self.contenders)
            order = self.contenders[first:] + self.contenders[:first]
            rounds.append({contender.name: self.drive(contender, scenario, rate) for contender in order})
        if (scenario.what, scenario.connections, scenario.at_half) == ("GET 13 B", 32, False):
            self.saturation = statistics.median(results[self.paced_by().name]["rate"] for results in rounds)
        turned_away, retransmissions = (after - before for before, after in zip(trouble, tcp_trouble()))
        noise = {"steal": steal_since(steal), "load_average": load_average(), "turned_away": turned_away, "retransmissions": retransmissions}
        for contender in self.contenders:
            before, after = shares[contender.name], contender.user_and_system()
            shares[contender.name] = [later - earlier for earlier, later in zip(before, after)]
        self.show(scenario, rate, rounds, shares, noise)

    def drive(self, contender, scenario, rate):
        """One round of one contender."""
        result = drive(
            self.rig, contender, scenario.connections, self.options.seconds, scenario.method, scenario.path, scenario.body, rate=rate,
            by_wrk=self.options.wrk)
        return result | {"rss_kib": contender.rss_kib()}

    def paced_by(self):
        """Whose rate is halved: nginx, or who there is."""
        return next((c for c in self.contenders if c.name == "nginx"), self.contenders[-1])

    def half_rate(self):
        """Half of what nginx reaches, measured if it was not yet."""
        if self.saturation is None:
            scenario = get_scenario(*SMALL, 32)
            self.saturation = statistics.median(self.drive(self.paced_by(), scenario, None)["rate"] for _ in range(3))
        return round(self.saturation / 2)

    def show(self, scenario, rate, rounds, shares, noise):
        """A table, what makes it doubtful, and all figures for whoever reads the JSON."""
        proxies = [c.name for c in self.contenders if c.child]
        widest = max(max(each) / min(each) for name in proxies if (each := [results[name]["proxy"] for results in rounds]))
        noise["widest_spread"] = widest
        title = scenario.name + (f" ({rate} requests/s)" if rate else "")
        large = scenario.moved >= 64 * KIB
        rows = [self.row(contender, scenario, rounds, shares[contender.name], large) for contender in self.contenders]
        head = ["", "CPU µs/req (min–max)", *(["µs/MiB"] if large else []), "× nginx", "× HAProxy", "× floor", "user", "req/s", "p50 µs",
                "p99 µs", "p99.9 µs", "p99 × nginx", "its core", "load µs/req", "upstream µs/req", "load core", "RSS MiB"]
        self.report.table(title, head, rows)
        self.report.line(
            f"\nNoise: steal {noise['steal']:.1%}, load average {noise['load_average']:.1f}, widest spread within a proxy {widest:.2f} ×, "
            f"connections turned away {noise['turned_away']}, retransmissions {noise['retransmissions']} (on all of the machine).")
        for line in doubts(scenario, self.contenders, rounds):
            self.report.line(line)
        about = dataclasses.asdict(scenario) | {"name": scenario.name, "paced_at": rate}
        self.report.measured("load", about, noise, rounds)

    def row(self, contender, scenario, rounds, share, large):
        """One contender's medians, and its ratios to the anchors."""
        results = [results_of[contender.name] for results_of in rounds]

        def median(key):
            return statistics.median(result[key] for result in results)

        row = [contender.name]
        if contender.child:
            row += [spread([result["proxy"] for result in results])]
            row += [f"{median('proxy') / scenario.moved * MIB:.0f}"] if large else []
            row += [ratios(rounds, contender.name, other, "proxy") for other in ("nginx", "HAProxy", "floor")]
            row += [f"{share[0] / sum(share):.0%}" if sum(share) else "?"]
        else:
            row += [""] * (6 if large else 5)
        row += [f"{median(key):.0f}" for key in ("rate", "p50", "p99", "p999")]
        row += [ratios(rounds, contender.name, "nginx", "p99"), f"{median('proxy_busy'):.0%}"] if contender.child else ["", ""]
        row += [f"{median('load'):.1f}", f"{median('upstream'):.1f}", f"{median('load_busy'):.0%}"]
        return row + [f"{median('rss_kib') / 1024:.1f}" if contender.child else ""]


def doubts(scenario, contenders, rounds):
    """What was the bottleneck where it was not the proxy; with more workers than one, proxies share the load's core anyway."""
    if scenario.workers > 1 or scenario.at_half:
        return
    busy = {c.name: [statistics.median(r[c.name][key] for r in rounds) for key in ("proxy_busy", "load_busy")] for c in contenders if c.child}
    full = [name for name, (proxy, load_core) in busy.items() if load_core >= FULL and proxy < FULL]
    if full:
        yield f"The load's core was full, so that their requests/s are those of load and upstream: {', '.join(full)}."
    idle = [name for name, (proxy, load_core) in busy.items() if load_core < FULL and proxy < FULL]
    if idle:
        yield f"Neither core was full (others took part of them, or both sides wait for each other): {', '.join(idle)}."
