"""Scores of coupled channels.

A component c is a set of slices that live and die together, S_c = {(W, d, i)}: index i of
dimension d of weight W. Slices that produce the channel (role `output`) of weights with two or
more dimensions are scored by the criterion, s(W, d, i), and aggregated,

    sum:  sum_S s      mean:  sum_S s / |S|      max:  max_S s      l2:  sqrt(sum_S s^2)

A group whose channels no such weight produces (a bare parameter, a normalisation alone) is
scored from all its slices instead.

With `slices: reading` the slices that read the channel are scored instead (role `input`), with
`all` both: a channel that is made small may be read by large weights, and the reverse (Fang et al.
2023, "DepGraph: Towards Any Structural Pruning", CVPR, score whole groups). What reads a channel
tells what it contributes: of `wanda` the sum over those slices bounds what the next layer loses,
and of `taylor` it is sum a dL/da over the activations a, the first-order change of the loss when
they become zero (Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource
Efficient Inference", ICLR). With `all`, a criterion that works out a value for every weight counts
biases and normalisations too; one that scores weights as they are does not, for the norm of a
scale and that of a filter have no unit in common.

A criterion that works out a value m for every weight scores a
slice by the sum of its values; one that is squared scores the component by (sum_S sum m)^2, the
sum with its signs over all coupled slices. A criterion of activations takes the places where the
channel is seen as its slices. Scores are then divided by the mean or maximum size of their group,
so that layers of different scale can be ranked together. Everything is one scatter per slice
list: linear in the number of indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Aggregate, Normalize, SlicesScored
from secateur.report import Frozen
from torch import Tensor

from engine.coupling import Coupling, Group, Slices
from engine.coupling.tracker import Role
from engine.errors import CriterionDoesNotFit
from engine.evidence.activations import Place, activation_means
from engine.evidence.samples import Evidence
from engine.scores.groups import group_keys
from engine.scores.registry import Criterion, Maps
from engine.scores.saliency import finite
from engine.seeds import generator
from engine.torchscript.program import Program

Scores = NDArray[np.float64]
Part = tuple[NDArray[np.int64], Scores]
"""The components of some slices, and their scores; -1 where an index belongs to none."""
SliceValues = Callable[[Slices], Scores | None]
"""The scores of a slice list; None where the criterion has nothing to say on its tensor."""
Roles = frozenset[Role]
"""Slices of which roles are scored."""
_PRODUCING: Roles = frozenset({"output"})
_READING: Roles = frozenset({"input"})
_VECTORS: Roles = frozenset({"vector"})
_ROLES: Mapping[SlicesScored, Roles] = {
    "producing": _PRODUCING,
    "reading": _READING,
    "all": _PRODUCING | _READING,
}


def component_scores(
    coupling: Coupling,
    tensors: Mapping[str, Tensor],
    criterion: Criterion,
    *,
    aggregate: Aggregate,
    normalize: Normalize,
    seed: int,
    slices: SlicesScored = "producing",
    program: Program | None = None,
    evidence: Evidence | None = None,
) -> Scores:
    """One score for every component; NaN where nothing could be scored.

    Args:
        coupling: components, slices and groups of the program.
        tensors: the program's tensors by name.
        criterion: how a slice is scored.
        aggregate: how the slices of a component become one score.
        normalize: by what of its group a score is divided.
        seed: for random criteria.
        slices: those that produce a channel, those that read it, or all.
        program: what the coupling was found on, for criteria that run it.
        evidence: what it is run on.

    Raises:
        CriterionDoesNotFit: the criterion finds nothing to look at.
    """
    if criterion.draw is not None:
        return _drawn(criterion.draw, coupling, seed)
    if criterion.activations is not None:
        ran, shown = _required(criterion, program, evidence)
        places = activation_means(ran, coupling, shown, criterion.activations)
        count = coupling.component_count
        scores, known = _aggregate(_observed(criterion, places), aggregate, count)
        scores[~known] = np.nan
    elif criterion.saliency is not None:
        ran, shown = _required(criterion, program, evidence)
        maps = criterion.saliency(ran, shown)
        roles = _ROLES[slices] | _VECTORS if slices == "all" else _ROLES[slices]
        scores = _salient(coupling, tensors, criterion, aggregate, maps, roles=roles)
    else:
        only = None if criterion.tensors is None else criterion.tensors(coupling.tape)
        scores = _over_slices(
            coupling,
            tensors,
            lambda item: _slice_scores(tensors[item.tensor], item.dim, criterion),
            aggregate,
            roles=_ROLES[slices],
            only=only,
        )
    return _normalized(scores, coupling.groups, normalize)


def unscored(coupling: Coupling, scores: Scores, criterion: Criterion) -> list[Frozen]:
    """The channels that the criterion cannot judge, which therefore stay.

    Raises:
        CriterionDoesNotFit: it can judge none.
    """
    if not criterion.lacking:
        return []
    left = [
        (group.name, int(np.isnan(scores[group.components]).sum())) for group in coupling.groups
    ]
    missing = [(name, count) for name, count in left if count]
    if missing and np.isnan(scores).all():
        layers = list(dict.fromkeys(name for name, _ in missing))
        listed = ", ".join(f"`{name}`" for name in layers[:5])
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        raise CriterionDoesNotFit(
            f"`{criterion.name}` can judge no channel of the model (layers {listed}{more}): "
            f"{criterion.lacking}",
            hint=criterion.remedy,
            where="criterion",
        )
    return [
        Frozen(layer=name, op=criterion.name, reason=criterion.lacking, channels=count)
        for name, count in missing
    ]


def _required(
    criterion: Criterion, program: Program | None, evidence: Evidence | None
) -> tuple[Program, Evidence]:
    if program is None or evidence is None:
        raise TypeError(f"criterion `{criterion.name}` runs the program and was given none")
    return program, evidence


def _drawn(draw: Callable[..., Tensor], coupling: Coupling, seed: int) -> Scores:
    scores = np.full(coupling.component_count, np.nan)
    for key, group in zip(group_keys(coupling.groups), coupling.groups, strict=True):
        source = generator(seed, "random", key)
        scores[group.components] = draw(len(group.components), source).numpy()
    return scores


def _over_slices(
    coupling: Coupling,
    tensors: Mapping[str, Tensor],
    values: SliceValues,
    aggregate: Aggregate,
    *,
    roles: Roles,
    only: set[str] | None = None,
) -> Scores:
    """Scores from the slices of these roles, or else from all the channel has."""
    count = coupling.component_count
    if only is not None:
        chosen = [item for item in coupling.slices if item.tensor in only]
        scores, seen = _aggregate(_parts(chosen, values), aggregate, count)
        scores[~seen] = np.nan
        return scores
    produced = [
        item
        for item in coupling.slices
        if item.role in roles and (tensors[item.tensor].dim() >= 2 or "vector" in roles)
    ]
    scores, seen = _aggregate(_parts(produced, values), aggregate, count)
    lacking = np.zeros(count, dtype=bool)
    for group in coupling.groups:
        if not seen[group.components].all():
            lacking[group.components] = True
    if lacking.any():
        every, seen_any = _aggregate(_parts(coupling.slices, values), aggregate, count)
        scores = np.where(lacking, every, scores)
        seen = np.where(lacking, seen_any, seen)
    scores[~seen] = np.nan
    return scores


def _parts(slices: Iterable[Slices], values: SliceValues) -> Iterable[Part]:
    for item in slices:
        if (item.component >= 0).any():
            scores = values(item)
            if scores is not None:
                yield item.component, scores


def _salient(
    coupling: Coupling,
    tensors: Mapping[str, Tensor],
    criterion: Criterion,
    aggregate: Aggregate,
    maps: Iterable[tuple[float, Maps]],
    *,
    roles: Roles,
) -> Scores:
    total = np.zeros(coupling.component_count)
    for share, values in maps:
        known = _under_all_names(coupling, finite(values, criterion.name))
        sums = partial(_slice_sums, known)
        way: Aggregate = "sum" if criterion.squared else aggregate
        part = _over_slices(coupling, tensors, sums, way, roles=roles)
        total += share * (np.square(part) if criterion.squared else part)
    return total


def _under_all_names(coupling: Coupling, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same by the names that slices have: a tied weight has several."""
    named = dict(maps)
    for first, names in coupling.tape.aliases.items():
        own = next((maps[name] for name in names if name in maps), None)
        if own is not None:
            named.setdefault(first, own)
    return named


def _observed(criterion: Criterion, places: Iterable[Place]) -> list[Part]:
    seen = [(place, means) for place in places if (means := place.means()) is not None]
    if seen and len({value for _, means in seen for value in np.unique(means).tolist()}) == 1:
        raise CriterionDoesNotFit(
            f"`{criterion.name}` tells no channel from another: it is {seen[0][1][0]:g} for all",
            hint="smooth activations (gelu, silu) are never exactly zero, which `apoz` counts; "
            "use `mean_activation`",
            where="criterion",
        )
    return [(row, means) for place, means in seen for row in np.atleast_2d(place.component)]


def _aggregate(
    parts: Iterable[Part], aggregate: Aggregate, count: int
) -> tuple[Scores, NDArray[np.bool_]]:
    total = np.zeros(count)
    number = np.zeros(count, dtype=np.int64)
    for components, scores in parts:
        live = components >= 0
        component, score = components[live], scores[live]
        if aggregate == "max":
            fresh = number == 0
            total[fresh] = -np.inf  # signed scores have a maximum below zero too
            np.maximum.at(total, component, score)
            total[np.isneginf(total) & fresh] = 0.0
        else:
            term = np.square(score) if aggregate == "l2" else score
            total += np.bincount(component, weights=term, minlength=count)
        number += np.bincount(component, minlength=count)
    if aggregate == "mean":
        total /= np.maximum(number, 1)
    elif aggregate == "l2":
        total = np.sqrt(total)
    return total, number > 0


def _slice_sums(maps: Mapping[str, Tensor], item: Slices) -> Scores | None:
    values = maps.get(item.tensor)
    if values is None:
        return None
    rows = values.movedim(item.dim, 0).reshape(values.shape[item.dim], -1)
    sums: Scores = rows.double().sum(1).cpu().numpy()
    return sums


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
        sizes = np.abs(own[np.isfinite(own)])  # an infinite weight must not make all others equal
        if not sizes.size:
            continue
        scale = float(sizes.mean() if normalize == "mean" else sizes.max())
        if scale > 0:  # a group of zeros has nothing to compare and stays zero
            scores[group.components] = own / scale
    return scores
