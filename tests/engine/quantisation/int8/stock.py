"""Runs files in a process of its own that has nothing but torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

_SCRIPT = """
import sys, torch
torch.set_num_threads(1)
cases, engines = torch.load(sys.argv[1]), sys.argv[3].split(",")
found = {}
for engine in engines:
    torch.backends.quantized.engine = engine
    for name, (file, inputs) in cases.items():
        with torch.no_grad():
            found[engine, name] = torch.jit.load(file)(*inputs)
assert not {"engine", "secateur"} & set(sys.modules)
torch.save(found, sys.argv[2])
"""


def run_fresh(
    cases: dict[str, tuple[bytes, list[Any]]], folder: Path, engines: tuple[str, ...] = ("x86",)
) -> dict[tuple[str, str], Any]:
    """Outputs by engine of torch and name of the case."""
    listed = {}
    for number, (name, (data, inputs)) in enumerate(cases.items()):
        file = folder / f"{number}.pt"
        file.write_bytes(data)
        listed[name] = str(file), inputs
    torch.save(listed, folder / "cases")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [
            sys.executable, "-W", "ignore", "-c", _SCRIPT,
            str(folder / "cases"), str(folder / "found"), ",".join(engines),
        ],
        check=True,
        cwd=folder,
        env=environment,
        timeout=120,
    )  # fmt: skip
    found: dict[tuple[str, str], Any] = torch.load(folder / "found")
    return found
