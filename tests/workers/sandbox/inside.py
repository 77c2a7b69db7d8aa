"""Run a few lines of Python behind the fences of a level, and take what they print."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.sandbox.launch import Contained, Level, Order
from workers.sandbox.policy import Limits

LEVELS: tuple[Level, Level] = ("full", "kernel")
_PRELUDE = """
import ctypes, errno, json, os, socket, subprocess, sys, time
def tried(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, "timeout")
    return "done"
"""


@dataclass
class Inside:
    """A scratch folder and a level."""

    root: Path
    level: Level

    @property
    def work(self) -> Path:
        return self.root / "work"

    def start(self, lines: str, **values: Any) -> tuple[Contained, int]:
        """The process, and the descriptor of what it prints."""
        self.work.mkdir(exist_ok=True)
        listen, output = os.pipe()
        order = Order(
            command=[sys.executable, "-P", "-s", "-c", _PRELUDE + textwrap.dedent(lines)],
            folder=self.work,
            environment={"PATH": os.environ["PATH"], "HOME": str(self.work)},
            output=output,
            write=[self.work],
            **values,
        )
        try:
            return Contained(order, self.level), listen
        finally:
            os.close(output)

    def run(self, lines: str, **values: Any) -> tuple[str, int]:
        """What it printed, and its exit status."""
        contained, listen = self.start(lines, **values)
        try:
            with open(listen, "rb") as printed:  # noqa: PTH123
                text = printed.read().decode()
            return text, contained.exit_code()
        finally:
            contained.close()

    def told(self, lines: str, **values: Any) -> Any:
        """What it printed as JSON."""
        printed, code = self.run(lines, **values)
        assert code == 0, printed
        return json.loads(printed)


__all__ = ["LEVELS", "Inside", "Limits"]
