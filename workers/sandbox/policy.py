"""What a guardian is told: the fences and the limits of one runner, as JSON.

Only the standard library: the guardian starts without site-packages.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class Limits:
    """Limits that the kernel keeps, per process; None is no limit.

    Attributes:
        cpu_seconds: of all threads of a process together.
        data_bytes: of memory allocated for data (`RLIMIT_DATA`).
        file_bytes: of one file.
        open_files: of one process.
        processes: processes and threads of the runner's user in its namespace.
    """

    cpu_seconds: int | None = None
    data_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class Policy:
    """All that holds for one runner.

    Attributes:
        command: of the runner; `--parent` and the guardian's process id are added.
        status: descriptor that the guardian reports on.
        passed: descriptors that the runner gets besides the standard ones.
        fenced: whether Landlock and seccomp are applied.
        read: files and folders that may be read and executed.
        listed: folders whose entries may be listed and not read.
        write: folders that may be written to as well.
        devices: device files that may be read and written.
        gpu: whether the device files are those of a GPU.
        loopback: whether sockets may be made; only where a network namespace holds no other
            interface.
        limits: of resources.
    """

    command: list[str]
    status: int
    passed: list[int]
    fenced: bool
    read: list[str]
    listed: list[str]
    write: list[str]
    devices: list[str]
    gpu: bool
    loopback: bool
    limits: Limits

    def as_json(self) -> bytes:
        """What `from_json` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """The policy that `as_json` wrote."""
        values = json.loads(text)
        return cls(**(values | {"limits": Limits(**values["limits"])}))
