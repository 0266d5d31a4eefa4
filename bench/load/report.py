"""The report: Markdown tables, printed as they come."""

import datetime
import platform
import statistics
import time

from machine import commit, cpu_name, load_average, versions


class Report:
    """Prints Markdown and remembers it."""

    def __init__(self, options, cores, quiet):
        self.text = ""
        self.started = time.monotonic()
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        self.line(f"## Load, {now}\n")
        self.line(f"* commit {commit()}; {platform.system()} {platform.release()}; {cpu_name()}, {len(cores)} cores")
        self.line(f"* {versions()}")
        if options.parts - {"replicas", "faults", "overload", "keepalive"}:
            placed = "proxies on one core, load and upstream on another" if len(cores) > 1 else "everything on one core"
            self.line(f"* 1 worker each, {placed}; {options.rounds} interleaved rounds of {options.seconds} s")
        self.line(f"* load average before: {load_average():.2f}{'' if quiet else ' (not quiet: read with care)'}")

    def line(self, text):
        """Prints a line."""
        print(text, flush=True)
        self.text += text + "\n"

    def table(self, title, head, rows):
        """Prints a table."""
        self.line(f"\n### {title}\n")
        self.line("| " + " | ".join(head) + " |")
        self.line("|" + "---|" * len(head))
        for row in rows:
            self.line("| " + " | ".join(row) + " |")

    def scenario(self, name, contenders, rounds, shares, steal):
        """Prints how a scenario went."""
        rows = []
        for contender in contenders:
            results = [results_of[contender.name] for results_of in rounds]
            row = [contender.name] + [f"{statistics.median(r[key] for r in results):.0f}" for key in ("rate", "p50", "p99")]
            if contender.child:
                row += [spread([r["cpu"] for r in results]), f"{shares[contender.name]:.0%}"]
                row += [ratio(rounds, contender.name, other) for other in ("nginx", "HAProxy")]
            rows.append(row + [""] * (8 - len(row)))
        head = ["", "req/s", "p50 µs", "p99 µs", "CPU µs/req (min–max)", "user", "× nginx", "× HAProxy"]
        self.table(f"{name} (steal {steal:.1%})", head, rows)

    def end(self):
        """Prints how long it took."""
        took = time.monotonic() - self.started
        self.line(f"\nLoad average after: {load_average():.2f} (its own load included). Measured in {took:.0f} s.")


def spread(values):
    """The median and, in brackets, the extremes."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def ratio(rounds, name, other):
    """The median of the CPU ratios within each round."""
    if other not in rounds[0] or not rounds[0][other]["cpu"]:
        return "-"
    return f"{statistics.median(r[name]['cpu'] / r[other]['cpu'] for r in rounds):.2f}"
