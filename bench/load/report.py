"""The report: Markdown tables, printed as they come."""

import datetime
import json
import platform
import statistics
import time

from machine import commit, cpu_name, load_average, versions


class Report:
    """Prints Markdown and remembers it."""

    def __init__(self, options, cores, quiet):
        self.text, self.tables, self.figures, self.failures = "", [], [], 0
        self.started = time.monotonic()
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        self.about = {
            "at": now, "commit": commit(), "kernel": platform.release(), "cpu": cpu_name(), "cores": len(cores), "versions": versions(),
            "load_average_before": load_average(), "quiet": quiet, "rounds": options.rounds, "seconds": options.seconds,
        }
        self.line(f"## Load, {now}\n")
        self.line(f"* commit {commit()}; {platform.system()} {platform.release()}; {cpu_name()}, {len(cores)} cores")
        self.line(f"* {versions()}")
        if options.parts - {"replicas", "faults", "overload", "keepalive"}:
            placed = "proxies on one core, load and upstream on another" if len(cores) > 1 else "everything on one core"
            self.line(f"* {placed}; {options.rounds} interleaved rounds of {options.seconds} s")
        self.line(f"* load average before: {load_average():.2f}{'' if quiet else ' (not quiet: read with care)'}")

    def line(self, text):
        """Prints a line."""
        print(text, flush=True)
        self.text += text + "\n"

    def table(self, title, head, rows):
        """Prints a table."""
        self.tables.append({"title": title, "head": head, "rows": rows})
        self.line(f"\n### {title}\n")
        self.line("| " + " | ".join(head) + " |")
        self.line("|" + "---|" * len(head))
        for row in rows:
            self.line("| " + " | ".join(row) + " |")

    def failure(self, text):
        """Prints what could not be measured; the rest goes on."""
        self.failures += 1
        self.line(f"\n**Not measured: {text}**")

    def measured(self, part, about, noise, rounds):
        """Keeps every figure, for the JSON."""
        self.figures.append({"part": part, "about": about, "noise": noise, "rounds": rounds})

    def end(self):
        """Prints how long it took."""
        took = time.monotonic() - self.started
        self.line(f"\nLoad average after: {load_average():.2f} (its own load included). Measured in {took:.0f} s.")

    def json(self):
        """Everything: each round's figures where there are rounds, and all tables as they were printed."""
        return json.dumps({"about": self.about, "measured": self.figures, "tables": self.tables}, indent=1, ensure_ascii=False)


def spread(values):
    """The median and, in brackets, the extremes."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def ratio(rounds, name, other, key):
    """The median of the ratios within each round."""
    each = within_rounds(rounds, name, other, key)
    return f"{statistics.median(each):.2f}" if each else "-"


def ratios(rounds, name, other, key):
    """The same with the extremes in brackets."""
    each = within_rounds(rounds, name, other, key)
    return spread(each) if each else "-"


def within_rounds(rounds, name, other, key):
    """Of one to another; none where the other was not measured or has no such figure."""
    if any(not results.get(other, {}).get(key) for results in rounds):
        return []
    return [results[name][key] / results[other][key] for results in rounds]
