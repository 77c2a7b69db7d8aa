"""Reads label vectors off labels that an operator has moved.

Labels lie along one dimension before; after, they may vary along none (one was picked), one, or
several (C -> heads x width). Of several one carries them on, the *pivot*, and labels that share
a pivot index are united.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from engine.coupling.labels import Dimension, Labels
from engine.coupling.tracker import Tracker
from engine.tape import Step, TensorValue


def place(
    tracker: Tracker,
    step: Step,
    output: TensorValue,
    result: torch.Tensor,
    labels: list[Dimension],
) -> None:
    """Read the label vectors of one output off the moved labels."""
    varying = [dim for dim in range(result.dim()) if _varies(result, dim)]
    core = result[
        tuple(slice(None) if dim in varying else 0 for dim in range(result.dim()))
    ].numpy()
    if not varying:
        tracker.freeze(core.reshape(1).astype(np.int64), step, "picked by its position")
        return
    choices = _choices(tracker, output, varying)
    if step.kind == "aten::pixel_shuffle" and result.dim() - 3 in varying:
        choices = [varying.index(result.dim() - 3)]  # its other dimensions are pixels
    pivot = _pivot(core, choices) if len(varying) > 1 else 0
    table = np.moveaxis(core, pivot, 0).reshape(core.shape[pivot], -1)
    vector = np.ascontiguousarray(table[:, 0])
    if table.shape[1] > 1:
        left = np.repeat(vector, table.shape[1] - 1)
        tracker.unite(left, table[:, 1:].ravel(), step, "indices of a reshaped dimension")
    dim = varying[pivot]
    if result.shape[dim] != output.shape[dim]:
        raise AssertionError(f"{step.kind}: labels {tuple(result.shape)} for {output.shape}")
    known = labels[dim]
    labels[dim] = vector if known is None else np.vstack([known, vector])
    if len(varying) > 1 and tracker.cuts is not None:
        tracker.cuts.carried.append((output.number, dim, vector))
        for other in varying:
            if other != dim:
                probe = tracker.space.allocate("", other, output.shape[other])
                tracker.cuts.probes.append((output.number, other, probe))
                known = labels[other]
                # A probe of an earlier layer may lie there, having come by way of the batch.
                labels[other] = probe if known is None else np.vstack([known, probe])


def _choices(tracker: Tracker, output: TensorValue, varying: list[int]) -> list[int]:
    """Positions in `varying` that may carry the labels."""
    heads = tracker.heads.get(output.number)
    everything = list(range(len(varying)))
    if heads not in varying:
        return everything
    at = varying.index(heads)
    return [at] if tracker.whole_heads else [place for place in everything if place != at]


def place_in_empty(
    tracker: Tracker,
    step: Step,
    labelled: Mapping[int, Dimension],
    labels: list[Dimension],
    *,
    along: int | None,
) -> None:
    """An empty result holds no values to follow; its other dimensions still have lengths.

    Args:
        along: the dimension that passes as it is, or None where that is not known.
    """
    own = next((value for value in labelled.values() if value is not None), None)
    if along is None:
        tracker.freeze(own, step, "an empty tensor")
    else:
        labels[along] = own


def _varies(result: torch.Tensor, dim: int) -> bool:
    if result.shape[dim] <= 1 or result.stride(dim) == 0:
        return False
    first = result.narrow(dim, 0, 1)
    return not torch.equal(first.expand_as(result), result)


def _pivot(core: Labels, choices: list[int]) -> int:
    """The dimension that leaves the most classes after uniting along all the others."""
    if len(choices) == 1:
        return choices[0]
    best, best_count = 0, -1
    for dim in choices:
        table = np.moveaxis(core, dim, 0).reshape(core.shape[dim], -1)
        names, compact = np.unique(table, return_inverse=True)
        compact = compact.reshape(table.shape)
        left = np.repeat(compact[:, :1], table.shape[1] - 1, axis=1).ravel()
        right = compact[:, 1:].ravel()
        graph = coo_matrix((np.ones(left.size, np.int8), (left, right)), shape=(names.size,) * 2)
        count = int(connected_components(graph, directed=False)[0])
        if count >= best_count:
            best, best_count = dim, count
    return best
