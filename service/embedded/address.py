"""The listening socket, opened by the supervisor and handed to the API process.

So a port in use is found before anything starts, port 0 is resolved once, and the API can be
restarted while clients wait in the backlog instead of being refused.
"""

from __future__ import annotations

import errno
import socket

from service.embedded.problems import CannotStart

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback address; port 0 takes a free one.

    Raises:
        CannotStart: the port is taken or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"Port {port} on {HOST} is in use.",
                "Stop what uses it, or choose another with --port (0 takes a free one).",
            ) from error
        raise CannotStart(
            f"Port {port} on {HOST} cannot be used: {error.strerror}.",
            "Choose another with --port (0 takes a free one).",
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where the socket is reached."""
    host, port = listener.getsockname()
    return f"http://{host}:{port}"
