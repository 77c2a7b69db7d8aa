r"""Layers that keep floating point, because the outputs would move too far without them.

The drift of a program is :math:`\lVert y_8 - y \rVert / \lVert y \rVert` over all outputs of all
samples. Where it exceeds the limit, each layer is quantised alone and its own drift measured, with
the real operators. The k layers with the largest drift stay in floating point, for the smallest k
whose program, lowered and run, keeps the limit. Drifts add up only roughly (see
`engine.quantisation.sensitivity`), so k is found by bisection and what is returned was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.calling import copies, plain_execution
from engine.errors import NothingQuantised
from engine.quantisation.int8.result import Int8Result
from engine.structure import tensors_in
from engine.torchscript.program import Program

Build = Callable[[tuple[str, ...]], Int8Result]
"""The program in int8 with these layers in floating point."""
Drift = Callable[[Program], float]


@dataclass(frozen=True)
class FallenBack:
    """A program within its limit.

    Attributes:
        result: of `Build`.
        drift: of it.
        kept: layers that stay in floating point for the limit's sake, with the drift of each alone;
            the largest first.
    """

    result: Int8Result
    drift: float
    kept: dict[str, float] = field(default_factory=dict)


def fall_back(build: Build, drift: Drift, limit: float, where: str) -> FallenBack:
    """Keep layers in floating point until the outputs move no further than a limit.

    Args:
        build: gives a program.
        drift: measures one.
        limit: on the drift.
        where: field of the recipe, for errors.

    Raises:
        NothingQuantised: no layer can be quantised within the limit.
    """
    whole = build(())
    found = drift(whole.program)
    if found <= limit:
        return FallenBack(whole, found)
    layers = list(dict.fromkeys(one.name for one in whole.layers if one.form != "float"))
    alone: dict[str, float] = {}
    for layer in layers:
        others = tuple(other for other in layers if other != layer)
        alone[layer] = drift(build(others).program)
    worst = sorted(layers, key=lambda layer: alone[layer], reverse=True)
    best: FallenBack | None = None
    low, high = 0, len(worst)
    while high - low > 1:
        count = (low + high) // 2
        result = build(tuple(worst[:count]))
        found = drift(result.program)
        if found <= limit:
            kept = {layer: alone[layer] for layer in worst[:count]}
            best, high = FallenBack(result, found, kept), count
        else:
            low = count
    if best is None:
        told = ", ".join(f"`{layer}` {alone[layer]:.2g}" for layer in worst[-5:])
        raise NothingQuantised(
            f"no layer can be quantised within a drift of {limit:g}",
            hint=f"alone they move the outputs by {told} at least; raise the limit",
            where=where,
        )
    return best


def drift_from(program: Program, batches: Sequence[Sequence[Any]]) -> Drift:
    """How far another program's outputs are from those of this one.

    Args:
        program: in floating point, on the CPU.
        batches: arguments of forward.
    """
    expected = [_outputs(program, batch) for batch in batches]
    size = sum(float(one.square().sum()) for outputs in expected for one in outputs)

    def drift(other: Program) -> float:
        change = 0.0
        for batch, outputs in zip(batches, expected, strict=True):
            found = _outputs(other, batch)
            change += sum(
                float((one - given).square().sum())
                for one, given in zip(found, outputs, strict=True)
            )
        return math.inf if math.isnan(change) else math.sqrt(change / (size or 1.0))

    return drift


@torch.no_grad()
def _outputs(program: Program, batch: Sequence[Any]) -> list[torch.Tensor]:
    with plain_execution():
        outputs = program.module(*copies(batch))
    return [one.double() for one in tensors_in([outputs]) if one.is_floating_point()]
