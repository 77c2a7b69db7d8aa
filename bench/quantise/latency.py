"""How long a run takes, dense and with stored weights, by turns in the same process."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor

_BLOCK_SECONDS = 0.2


def ratios(files: Mapping[str, bytes], x: Tensor, rounds: int) -> dict[str, float]:
    """Median over rounds of each file's time over that of the first, in processor time.

    A shared machine is fast and slow by the second, so files run in short blocks one after the
    other, and who begins changes from round to round. Files are loaded as anybody loads them.

    Args:
        files: TorchScript, by name; their outputs must be equal to the bit.
        x: the input.
        rounds: how often each has its turn.
    """
    modules = {name: torch.jit.load(io.BytesIO(file)) for name, file in files.items()}
    with torch.no_grad():
        expected = next(iter(modules.values()))(x)
        for name, module in modules.items():
            for _ in range(5):  # the executor compiles in the first runs
                if not torch.equal(module(x), expected):
                    raise RuntimeError(f"{name} computes something else")
        first = next(iter(modules.values()))
        runs = max(int(_BLOCK_SECONDS / max(_seconds(first, x, 3) / 3, 1e-6)), 1)
        found: list[dict[str, float]] = []
        for turn in range(rounds):
            names = list(modules)[turn % len(modules) :] + list(modules)[: turn % len(modules)]
            found.append({name: _seconds(modules[name], x, runs) for name in names})
    base = next(iter(modules))
    return {name: statistics.median(one[name] / one[base] for one in found) for name in modules}


def _seconds(module: torch.jit.ScriptModule, x: Tensor, runs: int) -> float:
    begun = time.process_time()
    for _ in range(runs):
        module(x)
    return time.process_time() - begun
