"""Child processes: started, watched, restarted with growing pauses, stopped."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 30.0
_KEEP_LOG_BYTES = 8 * 2**20
_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """One child process and its successors.

    Attributes:
        name: for people, and of its log file.
        arguments: of the Python interpreter.
        environment: the whole environment.
        log: file its output is appended to.
        pass_fds: descriptors it inherits.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    pass_fds: Sequence[int] = ()
    restarts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _pause: float = FIRST_PAUSE_SECONDS
    _started_at: float = 0.0
    _next_start: float = 0.0

    @property
    def pid(self) -> int | None:
        """Process id, None when it is not running."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> None:
        """Start the process, in a session of its own: a Ctrl-C at the terminal reaches only the
        supervisor, which then stops its children in order."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _KEEP_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.arguments],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(self.pass_fds),
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the supervisor has one thread
            )
        self._started_at = time.monotonic()

    def tend(self) -> int | None:
        """Restart the process when it died and its pause is over.

        Returns:
            The exit code when this call found it dead, else None.
        """
        now = time.monotonic()
        if self._process is None:
            if now >= self._next_start:
                self.restarts += 1
                self.start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        if now - self._started_at > _STABLE_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self._next_start = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._process = None
        return code

    @property
    def seconds_to_restart(self) -> float:
        """Until the next start of a dead process."""
        return max(0.0, self._next_start - time.monotonic())

    def terminate(self) -> None:
        """Ask the process to stop."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end; one that takes longer is killed with all it started."""
        if self._process is None:
            return
        try:
            self._process.wait(max(seconds, 0.01))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        text = self.log.read_bytes()[-20_000:].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _die_with_parent() -> None:
    # a supervisor that is killed outright cannot stop its children; on Linux the kernel does
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
