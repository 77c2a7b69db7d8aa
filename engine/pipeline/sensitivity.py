"""The sensitivity scan of a program: how far its outputs drift when one layer alone is pruned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.calling import copies
from engine.compaction.masked_dense import run_masked
from engine.coupling import Coupling
from engine.scores.groups import group_keys
from engine.selection.schedule import share_of
from engine.selection.sensitivity import Curves, scan
from engine.structure import map_tensors, pairs
from engine.torchscript.program import Program


@torch.no_grad()
def scan_channels(
    program: Program, coupling: Coupling, scores: NDArray[np.float64], inputs: Sequence[Any]
) -> Curves:
    """The drift of forward's outputs by group and ratio, lowest scores first, in float64.

    Channels are set to zero, not cut out: one run for each group and ratio, without an analysis.

    Args:
        program: the one the coupling was found on.
        coupling: components and groups.
        scores: one per component, NaN for those that must stay.
        inputs: arguments of forward to measure on.
    """
    joint = coupling.methods.join(program)
    example = [
        map_tensors(value, _wide) for value in coupling.methods.inputs(program, copies(inputs))
    ]
    groups = dict(zip(group_keys(coupling.groups), coupling.groups, strict=True))

    def outputs(removed: NDArray[np.int64]) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return coupling.methods.apart(run_masked(joint, coupling, removed, example))[:1]

    whole = outputs(np.empty(0, np.int64))

    def measure(key: str, ratio: float) -> float:
        own = groups[key].components
        ranked = own[~np.isnan(scores[own])]
        ranked = ranked[np.argsort(scores[ranked], kind="stable")]
        count = min(share_of(ratio, len(own)), len(ranked), len(own) - 1)
        return drift(whole, outputs(np.sort(ranked[:count])))

    return scan(list(groups), measure)


def drift(expected: Any, found: Any) -> float:
    """||found - expected|| / ||expected|| over all floating tensors; infinite where not finite."""
    difference = scale = 0.0
    for left, right in pairs(expected, found):
        if not isinstance(left, torch.Tensor) or not left.is_floating_point():
            continue
        difference += float((right - left).square().sum())
        scale += float(left.square().sum())
    value = math.sqrt(difference / scale) if scale > 0 else math.sqrt(difference)
    return value if math.isfinite(value) else math.inf


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value
