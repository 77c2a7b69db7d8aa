"""`python -m workers.sandbox.probe JSON`: tries from inside what the fences must refuse.

It prints, as JSON, the name of each attempt and whether it was refused. An attempt counts as
refused only when it fails; what could not be tried at all is an error and ends the probe.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)
        made.send(b"outside")


def attempts(told: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """What is tried, by name.

    Args:
        told: `canary` (a file to read), `target` (a folder to write to), `port` and `path` (of
            sockets that listen) and `pid` of the worker.
    """
    pid, here = told["pid"], ("127.0.0.1", told["port"])
    return {
        "read": lambda: Path(told["canary"]).read_bytes(),
        "write": lambda: (Path(told["target"]) / "written").write_bytes(b"outside"),
        "tcp": lambda: _connect(socket.AF_INET, socket.SOCK_STREAM, here),
        "udp": lambda: _connect(socket.AF_INET, socket.SOCK_DGRAM, here),
        "unix_socket": lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, told["path"]),
        "abstract_socket": lambda: _connect(
            socket.AF_UNIX, socket.SOCK_STREAM, "\0" + told["path"]
        ),
        "signal": lambda: os.kill(pid, 0),
        "processes": lambda: Path(f"/proc/{pid}/status").read_bytes(),
        "environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
    }


def main() -> int:
    """Try everything."""
    told = json.loads(sys.argv[1])
    Path("inside").write_bytes(b"a runner must be able to write here")
    refused = {}
    for name, attempt in attempts(told).items():
        try:
            attempt()
        except OSError:
            refused[name] = True
        else:
            refused[name] = False
    sys.stdout.write(json.dumps(refused) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
