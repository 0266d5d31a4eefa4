"""What gRPC and WebSocket clients get through the gateway, over HTTP/2 without TLS and over TLS."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures
from pathlib import Path

import grpc
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

PATIENCE = 20
taken_back = threading.Semaphore(0)


def raw(value):
    """Messages are bytes: the gateway does not look into them."""
    return value


def unary(request, context):
    context.send_initial_metadata((("x-head", "1"),))
    context.set_trailing_metadata((("x-trailer", "2"),))
    return b"got " + request


def refuse(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: é %")


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def echo(requests, context):
    for request in requests:
        yield b"again " + request


def wait(request, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    if gone.wait(PATIENCE):
        taken_back.release()
    return b""


def grpc_service():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, raw, raw),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse, raw, raw),
        "Wait": grpc.unary_unary_rpc_method_handler(wait, raw, raw),
        "Count": grpc.unary_stream_rpc_method_handler(count, raw, raw),
        "Join": grpc.stream_unary_rpc_method_handler(lambda requests, _: b",".join(requests), raw, raw),
        "Echo": grpc.stream_stream_rpc_method_handler(echo, raw, raw),
    }
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def start_gateway(program, directory):
    """The gateway, and where it listens."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=directory, check=True, capture_output=True)
    ports = directory / "ports.json"
    settings = {
        "GATEWAY__LISTEN": "127.0.0.1:0", "GATEWAY__H2C_LISTEN": "127.0.0.1:0", "REGISTRY__LISTEN": "127.0.0.1:0",
        "GATEWAY__TLS__LISTEN": "127.0.0.1:0", "GATEWAY__TLS__CERTIFICATE": "certificate.pem", "GATEWAY__TLS__KEY": "key.pem",
        "STORE__KIND": "memory", "SERVER__PORT_FILE": str(ports), "LOG__ACCESS": "off", "TIMEOUTS__FIRST_BYTE": "2s",
        "TIMEOUTS__UPSTREAM_SILENCE": "2s", "LIMITS__BODY_STALL": "2s",
    }
    environment = os.environ | {f"VERTICE_{name}": value for name, value in settings.items()}
    log = open(directory / "log", "wb")
    process = subprocess.Popen([program, "run"], cwd=directory, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + PATIENCE
    while not ports.exists():
        assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
        time.sleep(0.05)
    return process, {kind: addresses[0] for kind, addresses in json.loads(ports.read_text()).items() if addresses}


def register(registry, name, port, protocol=None):
    body = {"service_name": name, "endpoint": f"http://127.0.0.1:{port}", "ttl": 3600,
            "metadata": {"protocol": protocol} if protocol else {}}
    request = urllib.request.Request(f"http://{registry}/register", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 201


def failure(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("it succeeded")


def speak_grpc(channel):
    def path(method):
        return f"/v2/grpc_service/t.Test/{method}"

    def pieces(*values):
        for value in values:
            time.sleep(0.1)
            yield value

    call = channel.unary_unary(path("Unary"), raw, raw)
    answer, details = call.with_call(b"it", timeout=PATIENCE)
    assert answer == b"got it" and details.code() == grpc.StatusCode.OK
    assert dict(details.initial_metadata())["x-head"] == "1" and dict(details.trailing_metadata())["x-trailer"] == "2"
    assert len(call(bytes(3_000_000), timeout=PATIENCE)) == 3_000_004
    error = failure(channel.unary_unary(path("Refuse"), raw, raw), b"", timeout=PATIENCE)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: é %")
    assert len(list(channel.unary_stream(path("Count"), raw, raw)(b"1000", timeout=PATIENCE))) == 1000
    assert channel.stream_unary(path("Join"), raw, raw)(pieces(b"a", b"b", b"c"), timeout=PATIENCE) == b"a,b,c"
    echoed = channel.stream_stream(path("Echo"), raw, raw)(pieces(b"1", b"2"), timeout=PATIENCE)
    assert list(echoed) == [b"again 1", b"again 2"]
    with futures.ThreadPoolExecutor(30) as pool:
        assert set(pool.map(lambda _: call(b"x", timeout=PATIENCE), range(300))) == {b"got x"}

    for name, expected in [("nobody", grpc.StatusCode.UNAVAILABLE), ("dead_service", grpc.StatusCode.UNAVAILABLE)]:
        error = failure(channel.unary_unary(f"/v2/{name}/t.Test/Unary", raw, raw), b"", timeout=PATIENCE)
        assert error.code() == expected and f"'{name}'" in error.details(), error
    # The client's deadline, its change of mind, and the gateway's own bound: each takes the call back from the service.
    waiting = channel.unary_unary(path("Wait"), raw, raw)
    assert failure(waiting, b"", timeout=0.5).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert taken_back.acquire(timeout=PATIENCE)
    pending = waiting.future(b"", timeout=PATIENCE)
    time.sleep(0.3)
    pending.cancel()
    assert taken_back.acquire(timeout=PATIENCE)
    error = failure(waiting, b"", timeout=PATIENCE)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and "did not answer in time" in error.details(), error
    assert taken_back.acquire(timeout=PATIENCE)


async def converse(socket):
    """The service's side: sends everything back, and closes as it is told."""
    async for message in socket:
        if isinstance(message, str) and message.startswith("close "):
            await socket.close(int(message.split()[1]), "as asked")
            return
        await socket.send(message)


async def speak_websocket(ports, directory):
    async with serve(converse, "127.0.0.1", 0, max_size=None) as server:
        register(ports["registry"], "chat_service", server.sockets[0].getsockname()[1])
        import ssl
        trusting = ssl.create_default_context(cafile=directory / "certificate.pem")
        for scheme, address, secure in [("ws", ports["gateway"], None), ("wss", ports["gateway_tls"], trusting)]:
            url = f"{scheme}://{address}/v2/chat_service/room"
            async with connect(url, ssl=secure, max_size=None, ping_interval=0.5, proxy=None) as socket:
                for message in ["text", "é" * 40_000, b"", bytes(125), bytes(126), bytes(65_536), os.urandom(2_000_000)]:
                    await socket.send(message)
                    assert await socket.recv() == message
                await socket.send(["in ", "several ", "pieces"])
                assert await socket.recv() == "in several pieces"
                # Longer than an ordinary answer may be silent; only pings pass.
                await asyncio.sleep(3)
                await (await socket.ping(b"still there?"))
                await socket.send("close 4321")
                try:
                    await socket.recv()
                    raise AssertionError("it was not closed")
                except websockets.ConnectionClosed as closed:
                    assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "as asked"), closed


def main(program):
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        process, ports = start_gateway(program, directory)
        server, port = grpc_service()
        try:
            register(ports["registry"], "grpc_service", port, "grpc")
            register(ports["registry"], "dead_service", 1, "grpc")
            certificate = (directory / "certificate.pem").read_bytes()
            for name, channel in [
                ("HTTP/2 without TLS", grpc.insecure_channel(ports["gateway_h2c"])),
                ("TLS", grpc.secure_channel(ports["gateway_tls"], grpc.ssl_channel_credentials(certificate))),
            ]:
                with channel:
                    speak_grpc(channel)
                print(f"tests/clients: gRPC over {name}: good")
            asyncio.run(speak_websocket(ports, directory))
            print("tests/clients: WebSocket: good")
            assert process.poll() is None and b"panic caught" not in (directory / "log").read_bytes()
        except BaseException:
            sys.stderr.write((directory / "log").read_text()[-4000:])
            raise
        finally:
            process.terminate()
            process.wait(PATIENCE)
            server.stop(0)


main(sys.argv[1])
