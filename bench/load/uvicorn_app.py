"""A service on a real uvicorn with its default keep-alive: answers a POST with the port that its connection came from.

`python uvicorn_app.py ADDRESSES` listens on each of these (a gateway has a pool of connections for each), on one port, and
prints the port.
"""

import socket
import sys

import fastapi
import uvicorn

app = fastapi.FastAPI()


@app.post("/{path:path}", response_class=fastapi.responses.PlainTextResponse)
async def take(request: fastapi.Request):
    """Takes the whole body."""
    await request.body()
    return str(request.client.port)


def main():
    """Serves until it is ended."""
    sockets, port = [], 0
    for address in sys.argv[1:]:
        sockets.append(socket.create_server((address, port), backlog=64))
        port = sockets[0].getsockname()[1]
    print(port, flush=True)
    # Everything as by default, but for the log, and the port is the connection's own.
    config = uvicorn.Config(app, log_level="warning", access_log=False, proxy_headers=False)
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
