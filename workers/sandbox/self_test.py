"""What a level keeps out on this machine, found by trying."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.sandbox.launch import Contained, Level, NotContained, Order
from workers.sandbox.policy import Limits

PROBE = (sys.executable, "-P", "-s", "-m", "workers.sandbox.probe")
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")


def attempt(level: Level) -> dict[str, bool]:
    """Which attempts of `workers.sandbox.probe` are refused in a level.

    Raises:
        NotContained: the level does not come about here, or the probe does not run in it.
    """
    with tempfile.TemporaryDirectory(prefix="secateur-probe-") as name:
        folder = Path(name).resolve()
        work, canary = folder / "work", folder / "canary"
        work.mkdir()
        canary.write_bytes(b"not for runners")
        with _listening(folder / "socket") as port:
            told = {
                "canary": str(canary),
                "target": str(folder),
                "port": port,
                "path": str(folder / "socket"),
                "pid": os.getpid(),
            }
            printed, code = _run(level, work, json.dumps(told))
        # what the probe wrote into a folder of its own by that name does no harm
        unwritten = not (folder / "written").exists()
    try:
        refused = json.loads(printed.splitlines()[-1]) if code == 0 else None
    except (ValueError, IndexError):
        refused = None
    if not isinstance(refused, dict):
        raise NotContained(f"the probe ended with status {code}: {printed.strip()[-1000:]}")
    return {str(name): bool(value) for name, value in refused.items()} | {"write": unwritten}


def _run(level: Level, work: Path, told: str) -> tuple[str, int]:
    listen, output = os.pipe()
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    try:
        contained = Contained(
            Order(
                command=[*PROBE, told],
                folder=work,
                environment=environment | {"HOME": str(work)},
                output=output,
                write=[work],
                limits=Limits(cpu_seconds=60, open_files=256),
            ),
            level,
        )
    except BaseException:
        os.close(listen)
        raise
    finally:
        os.close(output)
    try:
        with open(listen, "rb") as words:  # noqa: PTH123 (a descriptor)
            printed = words.read().decode(errors="replace")
        try:
            return printed, contained.exit_code()
        except NotContained as fault:
            raise NotContained(f"{fault} {printed.strip()[-1000:]}".strip()) from fault
    finally:
        contained.close()


@contextmanager
def _listening(path: Path) -> Iterator[int]:
    """Sockets that would answer the probe: TCP and UDP on one port, a path, an abstract name."""
    made = [
        socket.create_server(("127.0.0.1", 0)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    ]
    try:
        port = int(made[0].getsockname()[1])
        made[2].bind(str(path))
        made[3].bind("\0" + str(path))
        for one in made[2:]:
            one.listen()
        yield port
    finally:
        for one in made:
            one.close()
