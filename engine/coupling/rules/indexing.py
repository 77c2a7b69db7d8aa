"""Values picked by index tensors.

Indices that are known (a buffer or a constant of the program) move labels like any other data
movement: index i of the result is index `picked[i]` of the source. Compaction writes the indices
of the survivors. Indices that depend on the input pick anything, so what they pick from stays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from engine.coupling.labels import Dimension, Labels
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue

_PICKED = "picked by an index tensor"


@rule("index_select")
def index_select(tracker: Tracker, step: Step) -> None:
    """One dimension picked by a vector; the others pass."""
    value, dim, index = step.arguments[0], int(step.arguments[1]), step.arguments[2]
    labels = tracker.labels(value)
    dim %= max(len(labels), 1)
    _freeze_indices(tracker, step)
    if labels:
        labels[dim] = _picked(tracker, step, labels[dim], index)
    tracker.assign(step.outputs[0], labels)


@rule("index", "_unsafe_index")
def index(tracker: Tracker, step: Step) -> None:
    """Advanced indexing: one known vector of indices moves labels; more or unknown ones freeze."""
    value, output = step.arguments[0], step.outputs[0]
    labels = tracker.labels(value)
    _freeze_indices(tracker, step)
    places: list[tuple[int, TensorValue, int]] = []
    dim = 0
    for item in step.arguments[1]:
        width = len(item.shape) if isinstance(item, TensorValue) and _boolean(item) else 1
        if isinstance(item, TensorValue):
            places.append((dim, item, width))
        dim += width
    result: list[Dimension] = [None] * len(output.shape)
    if len(places) == 1 and places[0][2] == 1 and len(places[0][1].shape) == 1:
        at, item, _ = places[0]
        result = [
            _picked(tracker, step, own, item) if position == at else own
            for position, own in enumerate(labels)
        ]
    else:
        last = max((at + width for at, _, width in places), default=0)
        for position, own in enumerate(labels):
            if position < last:
                tracker.freeze(own, step, _PICKED)
            else:
                result[len(result) - len(labels) + position] = own
    tracker.assign(output, result)


@rule("gather", "scatter", "scatter_add", "scatter_reduce")
def along(tracker: Tracker, step: Step) -> None:
    """Index i of one dimension is given for each place of the others, which correspond.

    Where the index tensor is shorter along another dimension it names a part of it by position.
    """
    value, index = step.arguments[0], step.argument("index")
    labels, places = tracker.labels(value), tracker.labels(index)
    if not labels or not places:
        picked(tracker, step)
        return
    dim = int(step.argument("dim")) % len(labels)
    tracker.freeze(labels[dim], step, _PICKED)
    tracker.freeze(places[dim], step, "used as an index")
    others = [index]
    source = step.argument("src")
    if isinstance(source, TensorValue):
        others.append(source)
        tracker.freeze(tracker.labels(source)[dim], step, "put at places of an index tensor")
    result: list[Dimension] = [None] * len(labels)
    for position in range(len(labels)):
        if position == dim:
            continue
        met = [labels[position], *(tracker.labels(other)[position] for other in others)]
        sizes = {value.shape[position], *(other.shape[position] for other in others)}
        if len(sizes) == 1:
            for own in met[1:]:
                tracker.unite(labels[position], own, step, "the same place in an index tensor")
            result[position] = labels[position]
        else:
            for own in met:
                tracker.freeze(own, step, _PICKED)
    tracker.assign(step.outputs[0], result)


@rule("index_add", "index_copy", "index_reduce", "index_fill")
def into(tracker: Tracker, step: Step) -> None:
    """Put at places along one dimension; along the others, source and target correspond."""
    value, source = step.arguments[0], step.argument("source")
    labels = tracker.labels(value)
    if not labels:
        picked(tracker, step)
        return
    dim = int(step.argument("dim")) % len(labels)
    tracker.freeze(labels[dim], step, "put at places of an index tensor")
    for own in tracker.labels(step.argument("index")):
        tracker.freeze(own, step, "used as an index")
    result = [None if position == dim else own for position, own in enumerate(labels)]
    if isinstance(source, TensorValue) and len(source.shape) == len(labels):
        for position, own in enumerate(tracker.labels(source)):
            if position == dim:
                tracker.freeze(own, step, "put at places of an index tensor")
            else:
                tracker.unite(labels[position], own, step, "put into another tensor")
    tracker.assign(step.outputs[0], result)


@rule("index_put", "_index_put_impl")
def put(tracker: Tracker, step: Step) -> None:
    """Values at places of leading dimensions; trailing ones of target and values correspond."""
    value, values = step.arguments[0], step.argument("values")
    labels = tracker.labels(value)
    _freeze_indices_of(tracker, step, step.arguments[1])
    last = 0
    for item in step.arguments[1]:
        last += len(item.shape) if isinstance(item, TensorValue) and _boolean(item) else 1
    result: list[Dimension] = [
        None if position < last else own for position, own in enumerate(labels)
    ]
    given = tracker.labels(values)
    trailing = len(labels) - last
    for own in labels[:last]:
        tracker.freeze(own, step, _PICKED)
    for offset in range(1, len(given) + 1):
        own = given[-offset]
        if offset <= trailing and values.shape[-offset] == value.shape[-offset]:
            tracker.unite(labels[-offset], own, step, "put into another tensor")
        else:
            tracker.freeze(own, step, "put at places of an index tensor")
    tracker.assign(step.outputs[0], result)


@rule("take_along_dim", "take", "masked_select", "nonzero")
def picked(tracker: Tracker, step: Step) -> None:
    """Nothing that is picked from can shrink."""
    _freeze_indices(tracker, step)
    for own in tracker.labels(step.arguments[0]):
        tracker.freeze(own, step, _PICKED)
    for output in step.outputs:
        if isinstance(output, TensorValue):
            tracker.assign(output, [None] * len(output.shape))


def known_indices(index: TensorValue, size: int) -> Labels | None:
    """Positions that an index tensor of the program picks, or None where they are not known."""
    if index.value is None or index.name is None or index.dtype not in {torch.int64, torch.int32}:
        return None
    positions: Labels = index.value.cpu().numpy().astype(np.int64)
    return np.where(positions < 0, positions + size, positions)


def _picked(tracker: Tracker, step: Step, own: Dimension, index: TensorValue) -> Dimension:
    if own is None:
        return None
    positions = known_indices(index, own.size)
    if positions is None:
        tracker.freeze(own, step, _PICKED)
        return None
    return own[positions]


def _freeze_indices(tracker: Tracker, step: Step) -> None:
    _freeze_indices_of(tracker, step, step.tensors()[1:])


def _freeze_indices_of(tracker: Tracker, step: Step, values: Iterable[TensorValue | None]) -> None:
    for value in filter(None, values):
        for own in tracker.labels(value):
            tracker.freeze(own, step, "used as an index")


def _boolean(item: TensorValue) -> bool:
    return item.dtype in {torch.bool, torch.uint8}
