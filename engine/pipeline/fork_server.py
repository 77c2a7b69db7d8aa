"""Fresh processes that need not wait for torch: one imports it ahead and forks for each file.

The server imports torch and nothing else, and never loads a model itself, so what it forks has
seen nothing but the file it is given. Importing takes two seconds; started with the job, that time
passes while the job computes.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

_SCRIPT = Path(__file__).with_name("fresh_process.py")


class ForkServer:
    """One server process; requests are answered one after the other.

    It ends when this process does, however that comes about: its input ends then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def start(self) -> None:
        """Begin to import; returns at once. Started already, it is left as it is."""
        with self._lock:
            self._running()

    def run(self, model: Path, exchange: Path, answer: Path, seconds: float) -> tuple[int, str]:
        """Have a fresh process run the model of the exchange and write its answer.

        Returns:
            Its status, negative for the signal that ended it, and the end of what it wrote to
            stderr.

        Raises:
            TimeoutError: it took longer; it was ended.
        """
        request = [str(path.resolve()) for path in (model, exchange, answer)]
        with self._lock:
            return self._asked(json.dumps(request).encode() + b"\n", seconds)

    def close(self) -> None:
        """End the server and what it forked."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                # -I keeps environment and working folder from adding modules: torch is all it needs
                [sys.executable, "-I", "-W", "ignore", str(_SCRIPT), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # its own, so that what is forked ends with it
                process_group=0,
            )
        return self._process

    def _asked(self, request: bytes, seconds: float) -> tuple[int, str]:
        process = self._running()
        requests, answers = process.stdin, process.stdout
        if requests is None or answers is None:
            raise RuntimeError("a server without its pipes")
        try:
            requests.write(request)
            requests.flush()
        except OSError:
            return self._ended(process)
        ready, _, _ = select.select([answers], [], [], seconds)
        if not ready:
            self._end()
            raise TimeoutError
        line = answers.readline()
        if not line.endswith(b"\n"):
            return self._ended(process)
        status, said = json.loads(line)
        return int(status), str(said)

    def _ended(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """The server itself was ended, by a limit of memory perhaps, while it had a request."""
        status = process.wait()
        self._end()
        return status or 1, ""

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


SERVER = ForkServer()
"""Of this process."""
