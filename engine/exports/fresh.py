"""Run a script that reads or runs an exported file in a process where nothing of this one is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from engine.exports.request import ExportFailed

_START = Path(__file__).with_name("fresh_start.py")
# The last ones are those of onnxruntime.
_EXCEPTION = re.compile(
    r"[\w.]*(Error|Exception|Fail|InvalidArgument|InvalidGraph|NotImplemented)\b"
)
_REASON = 1000


def run_fresh(script: Path, *arguments: Path | str, seconds: float) -> None:
    """Run a script with its arguments, isolated from environment, working folder and product.

    Raises:
        ExportFailed: it took too long, or ended with another status than zero; its last words are
            the reason.
    """
    command = [
        *(sys.executable, "-I", "-W", "ignore", str(_START)),
        *(str(os.getpid()), str(script), *map(str, arguments)),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise ExportFailed(
            f"the file was not read and run within {seconds:.0f} seconds in a fresh process"
        ) from error
    if done.returncode != 0:
        raise ExportFailed(
            f"the file fails in a fresh process: {last_words(done.stderr, done.returncode)}"
        )


def last_words(printed: str, status: int) -> str:
    """The last exception of what a process printed, or how it ended."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    starts = [at for at, line in enumerate(lines) if _EXCEPTION.match(line)]
    if status < 0:
        return f"it was ended by signal {-status}"
    if not starts:
        return (lines[-1] if lines else f"it ended with status {status}")[:_REASON]
    first = starts[-1]
    return " ".join(lines[first : first + (2 if lines[first].endswith(":") else 1)])[:_REASON]
