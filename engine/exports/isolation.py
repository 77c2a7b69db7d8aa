"""Run a format in a process of its own, with a time limit: it may crash or hang by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.exports.fresh import last_words
from engine.exports.process import read_answer, write_request
from engine.exports.request import Exported, ExportRequest

_LOG_BYTES = 1 << 16


@dataclass(frozen=True)
class NotMade:
    """Why there is no export.

    Attributes:
        reason: in a sentence.
        printed: the end of what the process printed, where it ended without an answer.
    """

    reason: str
    printed: str = ""


def run_isolated(
    module: str, request: ExportRequest, *, scratch: Path, threads: int
) -> Exported | NotMade:
    """What the `write` of a module answers.

    Args:
        module: of the format.
        request: its folder exists; the process is ended after its `seconds`.
        scratch: folder for what passes between the processes.
        threads: that it may use.
    """
    request_file, answer, log = scratch / "request.pt", scratch / "answer.json", scratch / "log"
    write_request(module, request, request_file, parent=os.getpid(), threads=threads)
    command = [
        *(sys.executable, "-P", "-s", "-W", "ignore", "-m", "engine.exports.process"),
        *(str(request_file), str(answer)),
    ]
    with log.open("wb") as printed, _started(command, printed) as process:
        try:
            status = process.wait(request.seconds)
        except subprocess.TimeoutExpired:
            return NotMade(f"it took longer than {request.seconds:g} seconds and was ended")
    if status == 0 and answer.is_file():
        answered = read_answer(answer)
        return NotMade(answered) if isinstance(answered, str) else answered
    words = _end_of(log)
    return NotMade(last_words(words, status), words)


@contextmanager
def _started(command: list[str], printed: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end; fresh ones that it started end with it."""
    # In the job's own process group: who ends the job ends this too.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - _LOG_BYTES, 0))
        return file.read().decode(errors="replace")
