"""The runner's process: started scrubbed and contained, heard through pipes, ended as a whole.

The supervisor reads two pipes: the events (JSON lines) and the log (stdout and stderr). It reads
no faster than it can store, so a runner that prints without end waits instead of filling memory.
"""

from __future__ import annotations

import codecs
import os
import selectors
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from workers.messages import MAX_LINE_BYTES, AnyMessage, Malformed, parse
from workers.sandbox.launch import Contained, Level, Order
from workers.sandbox.policy import Limits
from workers.scratch import Scratch

RUNNER = (sys.executable, "-P", "-s", "-m", "workers.runner")
"""`-P`, `-s`: no module is imported from the folder the job writes to, or from a home folder."""

_CHUNK_BYTES = 1 << 16
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "TZ")


def runner_environment(
    scratch: Scratch, *, threads: int, cuda_device: str | None
) -> dict[str, str]:
    """Environment of a runner: nothing of the worker's but where programs are.

    No database or broker URL, no key, no home folder. Hash order and cuBLAS are pinned so that a
    recipe with a seed gives the same result twice.
    """
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {
        "HOME": str(scratch.home),
        "TMPDIR": str(scratch.tmp),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": cuda_device or "",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "USER": "runner",  # there is no list of users inside
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True)
class Bounds:
    """What one runner is contained by.

    Attributes:
        level: of containment.
        limits: that the kernel keeps.
        gpu: whether it gets a GPU.
        loopback: whether its processes talk to each other over 127.0.0.1.
        read: what it may read besides the installation and its inputs.
    """

    level: Level
    limits: Limits
    gpu: bool = False
    loopback: bool = False
    read: Sequence[Path] = ()


@dataclass(frozen=True)
class Heard:
    """What one look at the pipes brought."""

    messages: list[AnyMessage]
    log: str


class RunnerProcess:
    """One runner; leaving the block ends it with everything it started."""

    def __init__(
        self,
        scratch: Scratch,
        environment: dict[str, str],
        bounds: Bounds,
        command: Sequence[str] = RUNNER,
    ) -> None:
        self._events, events_in = os.pipe()
        self._log, log_in = os.pipe()
        try:
            self._contained = Contained(
                Order(
                    command=[
                        *command,
                        *("--job", str(scratch.job_file)),
                        *("--events-fd", str(events_in)),
                    ],
                    folder=scratch.work,
                    environment=environment,
                    output=log_in,
                    passed=(events_in,),
                    read=(scratch.job_file, scratch.input, *bounds.read),
                    write=(scratch.tmp, scratch.home, scratch.work),
                    gpu=bounds.gpu,
                    loopback=bounds.loopback,
                    limits=bounds.limits,
                ),
                bounds.level,
            )
        except BaseException:
            os.close(self._events)
            os.close(self._log)
            raise
        finally:
            os.close(events_in)
            os.close(log_in)
        self._partial = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._events, self._log):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Process id of the outermost of the runner's processes."""
        return self._contained.pid

    def listen(self, timeout: float) -> Heard:
        """Wait for output up to `timeout` seconds and return it.

        Raises:
            Malformed: a line is no message, or too long to be one.
        """
        messages: list[AnyMessage] = []
        log = b""
        for key, _ in self._selector.select(timeout):
            chunk = os.read(key.fd, _CHUNK_BYTES)
            if not chunk:
                self._selector.unregister(key.fd)
            elif key.fd == self._log:
                log += chunk
            else:
                messages += [parse(line) for line in self._lines(chunk) if line]
        return Heard(messages, self._decoder.decode(log))

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes; what follows them waits for the next chunk."""
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            self._partial += head
            lines = self._partial.split(b"\n")
            self._partial = bytearray(tail)
        else:
            lines = []
            self._partial += chunk
        if len(self._partial) > MAX_LINE_BYTES:
            raise Malformed(f"a line of more than {MAX_LINE_BYTES} bytes")
        return [bytes(line) for line in lines]

    @property
    def silent(self) -> bool:
        """Whether both pipes are closed and nothing more can come."""
        return not self._selector.get_map()

    def poll_end(self) -> bool:
        """Whether the runner has ended, and with it whatever it started."""
        return self._contained.poll_end()

    def exit_code(self) -> int:
        """Exit status, negative for the signal that ended it; waits for the end.

        Raises:
            NotContained: the fences could not be put up, and nothing was run.
        """
        return self._contained.exit_code()

    def terminate(self, grace_seconds: float) -> None:
        """Ask the runner to stop, and kill it when it has not after the grace time."""
        self._contained.terminate(grace_seconds)

    def kill(self) -> None:
        """End everything at once."""
        self._contained.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._contained.close()
        self._selector.close()
        os.close(self._events)
        os.close(self._log)
