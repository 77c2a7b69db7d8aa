"""What a benchmark ran on: printed under every result, because a time without it says nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def processor() -> str:
    """The processor's model name."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def description(*distributions: str) -> str:
    """One line: cores, processor, threads, and versions of Python, torch and `distributions`."""
    versions = [f"python {platform.python_version()}", f"torch {torch.__version__}"]
    versions += [f"{name} {version(name)}" for name in distributions]
    return (
        f"{os.cpu_count()} cores, {processor()}, {torch.get_num_threads()} thread(s); "
        + ", ".join(versions)
    )
