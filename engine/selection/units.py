"""Layers and weights as an allocation by layer sees them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Allocation
from torch import Tensor

from engine.coupling import Coupling
from engine.errors import NothingPruned
from engine.scores.groups import group_keys
from engine.selection.by_layer import Unit, totals

_NO_WEIGHTS = np.empty(0)


def channel_totals(
    allocation: Allocation,
    coupling: Coupling,
    tensors: Mapping[str, Tensor],
    scores: NDArray[np.float64],
) -> dict[str, int]:
    """Channels each group loses in the whole stage, by its key.

    A group goes by the names and shapes of all the weights that produce its channels.

    Args:
        allocation: how much, where.
        coupling: components and groups before the stage.
        tensors: the program's tensors by name.
        scores: one per component, NaN for those that must stay.
    """
    owner = np.full(coupling.component_count, -1, dtype=np.int64)
    for number, group in enumerate(coupling.groups):
        owner[group.components] = number
    made: list[list[str]] = [[] for _ in coupling.groups]
    read: list[list[str]] = [[] for _ in coupling.groups]
    for item in coupling.slices:
        produces = item.role == "output" and tensors[item.tensor].dim() >= 2
        for number in np.unique(owner[item.component[item.component >= 0]]):
            (made if produces else read)[int(number)].append(item.tensor)
    return totals(
        allocation,
        [
            Unit(
                name=key,
                # The group's own name first: it is what the report calls it.
                layers=list(dict.fromkeys([group.name, *map(_layer, own)])),
                size=len(group.components),
                shapes=[tuple(tensors[name].shape) for name in own or others],
                scores=scores[group.components],
                magnitudes=_NO_WEIGHTS,
            )
            for key, group, own, others in zip(
                group_keys(coupling.groups), coupling.groups, made, read, strict=True
            )
        ],
    )


def element_totals(
    allocation: Allocation,
    weights: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> dict[str, int]:
    """Elements each weight loses in the whole stage, masked ones included, by its name.

    Args:
        allocation: how much, where.
        weights: those that can be masked.
        scores: of their elements, on the CPU; masked elements below all others.
        masks: that hold already.
    """
    units = []
    for name, weight in weights.items():
        kept = weight.detach().double().cpu()
        kept = kept[masks[name]] if name in masks else kept.reshape(-1)
        units.append(
            Unit(
                name=name,
                layers=[_layer(name)],
                size=weight.numel(),
                shapes=[tuple(weight.shape)],
                scores=scores[name].double().numpy().reshape(-1),
                magnitudes=kept.abs().numpy(),
                deviation=float(kept.std(correction=0)) if kept.numel() else 0.0,
                gone=weight.numel() - kept.numel(),
            )
        )
    return totals(allocation, units)


def nothing_by_layer(allocation: Allocation, scores: NDArray[np.float64]) -> NothingPruned:
    """Why a plan by layer removes no channel."""
    if allocation.threshold is not None:
        return NothingPruned(
            f"the plan removes nothing: no channel scores below `threshold: "
            f"{allocation.threshold}`, or each is the last of its layer",
            hint=f"the lowest score is {np.nanmin(scores):.4g} and the median "
            f"{np.nanmedian(scores):.4g}; `normalize` decides their unit",
            where="allocation.threshold",
        )
    field = "layers" if allocation.layers is not None else "amount"
    return NothingPruned(
        f"the plan removes nothing: `allocation.{field}` rounds to no channel in every layer",
        hint="raise the fractions",
        where=f"allocation.{field}",
    )


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor
