"""`python -m service.embedded.web --fd N`: the API process, on a socket it inherits."""

from __future__ import annotations

import argparse
import socket

import uvicorn

from service.app import create_app


def main() -> None:
    """Serve until SIGTERM; open event streams get a moment, then are cut."""
    parser = argparse.ArgumentParser(prog="python -m service.embedded.web")
    parser.add_argument("--fd", type=int, required=True, help="listening socket")
    listener = socket.socket(fileno=parser.parse_args().fd)
    config = uvicorn.Config(
        create_app,
        factory=True,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
