"""The runner's process: started scrubbed and limited, heard through pipes, ended as a group.

The supervisor reads two pipes: the events (JSON lines) and the log (stdout and stderr). It reads
no faster than it can store, so a runner that prints without end waits instead of filling memory.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from workers.messages import MAX_LINE_BYTES, AnyMessage, Malformed, parse
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
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True)
class Heard:
    """What one look at the pipes brought."""

    messages: list[AnyMessage]
    log: str


class RunnerProcess:
    """One runner; leaving the block kills what is left of its process group."""

    def __init__(
        self,
        job_file: Path,
        scratch: Scratch,
        environment: dict[str, str],
        command: Sequence[str] = RUNNER,
    ) -> None:
        self._events, events_in = os.pipe()
        self._log, log_in = os.pipe()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [
                    *command,
                    *("--job", str(job_file)),
                    *("--events-fd", str(events_in)),
                    *("--parent", str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log_in,
                stderr=log_in,
                cwd=scratch.work,
                env=environment,
                pass_fds=(events_in,),
                start_new_session=True,
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
        self._ended = False
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._events, self._log):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Process id, which is the process group's too."""
        return self._process.pid

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
        """Whether the process has ended. If so, whatever it started is killed first.

        The ended process is looked at without being reaped: as long as it is a zombie its process
        group cannot be another's, so the signal can hit nobody else.
        """
        if not self._ended:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            self._ended = os.waitid(os.P_PID, self.pid, options) is not None
            if self._ended:
                self._signal(signal.SIGKILL)
        return self._ended

    def exit_code(self) -> int:
        """Exit status, negative for the signal that ended it; waits for the end."""
        return self._process.wait()

    def terminate(self, grace_seconds: float) -> None:
        """Ask the group to stop, and kill it when it has not after the grace time."""
        if not self.poll_end():
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while not self.poll_end() and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """End the group at once."""
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._ended = True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # everybody in the group has ended
            os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._selector.close()
        os.close(self._events)
        os.close(self._log)
