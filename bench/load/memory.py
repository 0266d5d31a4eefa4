"""What proxies hold: at rest, with idle clients, and after load."""

import contextlib
import socket
import time

from drive import drive
from rig import PATIENCE, Unusable, end

CLIENTS = 1000
MANY_CLIENTS = 10_000
SETTLING = 1  # seconds


def memory(rig, options, report):
    """A thousand idle clients, and with --axes full ten thousand, too."""
    for count in [CLIENTS, MANY_CLIENTS] if options.axes != "core" else [CLIENTS]:
        contenders, _ = rig.contenders(options.also)
        rows = [row(rig, contender, count) for contender in contenders[1:]]
        head = ["", "RSS at rest, MiB", "clients", "RSS with them, MiB", "KiB per client, fresh", "after a request", "RSS after load, MiB",
                "again with the clients, MiB", "KiB per client"]
        report.table(f"Memory with {count} idle keep-alive clients", head, rows)


def row(rig, contender, count):
    """One contender, which is ended."""
    count = min(count, contender.clients_max)
    rest = contender.rss_kib()
    fresh, used = with_clients(contender, count)
    drive(rig, contender, 256, 1)
    drive(rig, contender, 32, 1, path="/64k")
    time.sleep(SETTLING)
    loaded = contender.rss_kib()
    _, again = with_clients(contender, count)
    end(contender.child)
    each = [f"{(rss - before) / count:.1f}" for rss, before in ((fresh, rest), (used, rest), (again, loaded))]
    mib = [f"{rss / 1024:.1f}" for rss in (rest, used, loaded, again)]
    return [contender.name, mib[0], str(count), mib[1], each[0], each[1], mib[2], mib[3], each[2]]


def with_clients(contender, count):
    """RSS with so many clients: before their first request, and after it."""
    with contextlib.ExitStack() as open_sockets:
        clients = []
        for _ in range(count):
            clients.append(open_sockets.enter_context(socket.create_connection(("127.0.0.1", contender.port), PATIENCE)))
        time.sleep(SETTLING)
        fresh = contender.rss_kib()
        for client in clients:
            exchange(client, contender.prefix + "/")
        time.sleep(SETTLING)
        return fresh, contender.rss_kib()


def exchange(client, path):
    """One request on an open connection."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"Hello, world\n"):
        piece = client.recv(4096)
        if not piece:
            raise Unusable("the connection was closed instead of kept alive")
        answer += piece
