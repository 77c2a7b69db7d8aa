"""Scores of coupled channels.

A component c is a set of slices that live and die together, S_c = {(W, d, i)}: index i of
dimension d of weight W. Slices that produce the channel (role `output`) of weights with two or
more dimensions are scored by the criterion, s(W, d, i), and aggregated,

    sum:  sum_S s      mean:  sum_S s / |S|      max:  max_S s      l2:  sqrt(sum_S s^2)

A group whose channels no such weight produces (a bare parameter, a normalisation alone) is
scored from all its slices instead. Scores are then divided by the mean or maximum of their group,
so that layers of different scale can be ranked together. Everything is one scatter per slice
list: linear in the number of indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Aggregate, Normalize
from torch import Tensor

from engine.coupling import Coupling, Group, Slices
from engine.scores.groups import group_keys
from engine.scores.registry import Criterion
from engine.seeds import generator

Scores = NDArray[np.float64]


def component_scores(
    coupling: Coupling,
    tensors: Mapping[str, Tensor],
    criterion: Criterion,
    *,
    aggregate: Aggregate,
    normalize: Normalize,
    seed: int,
) -> Scores:
    """One score for every component; NaN where nothing could be scored.

    Args:
        coupling: components, slices and groups of the program.
        tensors: the program's tensors by name.
        criterion: how a slice is scored.
        aggregate: how the slices of a component become one score.
        normalize: by what of its group a score is divided.
        seed: for random criteria.
    """
    count = coupling.component_count
    if criterion.draw is not None:
        return _drawn(criterion.draw, coupling, seed)
    produced = [
        item
        for item in coupling.slices
        if item.role == "output" and tensors[item.tensor].dim() >= 2
    ]
    scores, seen = _aggregate(produced, tensors, criterion, aggregate, count)
    lacking = np.zeros(count, dtype=bool)
    for group in coupling.groups:
        if not seen[group.components].all():
            lacking[group.components] = True
    if lacking.any():
        every, seen_any = _aggregate(coupling.slices, tensors, criterion, aggregate, count)
        scores = np.where(lacking, every, scores)
        seen = np.where(lacking, seen_any, seen)
    scores[~seen] = np.nan
    return _normalized(scores, coupling.groups, normalize)


def _drawn(draw: Callable[..., Tensor], coupling: Coupling, seed: int) -> Scores:
    scores = np.full(coupling.component_count, np.nan)
    for key, group in zip(group_keys(coupling.groups), coupling.groups, strict=True):
        source = generator(seed, "random", key)
        scores[group.components] = draw(len(group.components), source).numpy()
    return scores


def _aggregate(
    slices: Iterable[Slices],
    tensors: Mapping[str, Tensor],
    criterion: Criterion,
    aggregate: Aggregate,
    count: int,
) -> tuple[Scores, NDArray[np.bool_]]:
    total = np.zeros(count)
    parts = np.zeros(count, dtype=np.int64)
    for item in slices:
        live = item.component >= 0
        if not live.any():
            continue
        component = item.component[live]
        score = _slice_scores(tensors[item.tensor], item.dim, criterion)[live]
        if aggregate == "max":
            np.maximum.at(total, component, score)
        else:
            term = np.square(score) if aggregate == "l2" else score
            total += np.bincount(component, weights=term, minlength=count)
        parts += np.bincount(component, minlength=count)
    if aggregate == "mean":
        total /= np.maximum(parts, 1)
    elif aggregate == "l2":
        total = np.sqrt(total)
    return total, parts > 0


def _slice_scores(weight: Tensor, dim: int, criterion: Criterion) -> Scores:
    if criterion.slices is None:  # only drawing criteria have none, and those are handled apart
        raise TypeError(f"criterion `{criterion.name}` does not score weights")
    rows = (
        weight.detach().movedim(dim, 0).flatten(1) if weight.dim() > 1 else weight.detach()[:, None]
    )
    # float32 keeps the pass over the weights at memory speed; half types would overflow.
    rows = rows.float() if rows.element_size() < 4 else rows
    scored: Scores = criterion.slices(rows).double().cpu().numpy()
    return scored


def _normalized(scores: Scores, groups: Iterable[Group], normalize: Normalize) -> Scores:
    if normalize == "none":
        return scores
    for group in groups:
        own = scores[group.components]
        finite = own[np.isfinite(own)]  # an infinite weight must not make all others equal
        if not finite.size:
            continue
        scale = float(finite.mean() if normalize == "mean" else finite.max())
        if scale > 0:  # a group of zeros has nothing to compare and stays zero
            scores[group.components] = own / scale
    return scores
