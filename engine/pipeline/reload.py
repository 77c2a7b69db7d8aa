"""Load the saved file in a process that has never seen it, and compare what it computes.

The fresh process uses the optimised executor, this one the plain one, whose sums round differently.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.errors import CertificateFailed
from engine.pipeline.fork_server import SERVER
from engine.structure import map_tensors
from engine.torchscript.precision import comparison_tolerance
from engine.torchscript.program import Program

_SECONDS = 300
_NO_ROOM = os.strerror(errno.ENOSPC)
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")


def check_reload(program: Program, saved: Path, inputs: Sequence[Any], workdir: Path) -> float:
    """Run the saved file in a fresh process against the program in memory.

    Returns:
        The largest difference, relative to the largest output.

    Raises:
        CertificateFailed: the file does not load there, takes too long, or computes otherwise.
        OSError: the fresh process found no room for its answer.
    """
    with torch.no_grad(), plain_execution():
        torch.manual_seed(0)
        expected = call(program.module, inputs)
    exchange, answer = workdir / "reload.pt", workdir / "reload.json"
    torch.save(
        {
            "inputs": map_tensors(list(inputs), Tensor.cpu),
            "expected": map_tensors(expected, Tensor.cpu),
            "device": program.device,
            "threads": torch.get_num_threads(),
        },
        exchange,
    )
    try:
        status, printed = SERVER.run(saved, exchange, answer, _SECONDS)
    except TimeoutError as error:
        raise _failed(f"it did not answer within {_SECONDS} seconds") from error
    finally:
        exchange.unlink()
    if status != 0:
        if _NO_ROOM in printed:
            raise OSError(errno.ENOSPC, _NO_ROOM, str(answer))
        raise _failed(_reason(printed) or f"it ended with status {status}")
    difference = float(json.loads(answer.read_text())["relative_error"])
    answer.unlink()
    if not difference <= comparison_tolerance(program):
        raise _failed(f"its outputs differ by {difference:.2g} of the largest output")
    return difference


def _reason(printed: str) -> str:
    """What an exception says, of all that was printed; TorchScript adds code after it."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    starts = [at for at, line in enumerate(lines) if _EXCEPTION.match(line)]
    if not starts:
        return lines[-1] if lines else ""
    first = starts[-1]
    return " ".join(lines[first : first + (2 if lines[first].endswith(":") else 1)])


def _failed(reason: str) -> CertificateFailed:
    return CertificateFailed(
        f"the saved model fails in a fresh process: {reason}",
        hint="no model was produced; the file that shows this is worth a report",
        where="compact.pt",
    )
