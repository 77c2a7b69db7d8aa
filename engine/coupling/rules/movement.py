r"""Data movement: the operator itself, run on the labels.

View, permute, cat, chunk, expand, pixel shuffle and the like compute nothing; they put values in
other places. Running the same operator on a tensor of labels therefore tells where every index
went, with no rule for each operator. For each labelled dimension d of the inputs:

1. lay its labels along d of a tensor of the input's shape (stride 0 elsewhere, so it costs
   nothing), zeros for the other inputs, and run the operator;
2. find the output dimensions along which the result varies.
   * one: the result along it is that dimension's label vector;
   * several (C -> heads x width, groups x C/groups): keep one of them, the *pivot*, and unite the
     labels that share a pivot index, so that what can be removed stays a box. The pivot is the
     dimension that leaves the most independent channels, the innermost on a tie;
   * none, but not zero: one index was picked by position; it is frozen.

Dimensions that are neither labelled nor named by the operator are cut to one element first where
the operator works along a single dimension (cat, split, slice ...).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from engine.coupling.labels import Dimension
from engine.coupling.placement import place, place_in_empty
from engine.coupling.tracker import Tracker, rule
from engine.errors import EngineError
from engine.structure import tensors_in
from engine.tape import Step, TensorValue, flatten
from engine.torchscript.interpreter import run_operator

_ALONG_ONE_DIMENSION = frozenset(
    f"aten::{name}"
    for name in (
        "cat", "concat", "concatenate", "chunk", "unsafe_chunk", "split", "unsafe_split",
        "split_with_sizes",
        "slice", "select", "narrow", "unbind", "tensor_split",
    )
)  # fmt: skip
_POSITION_DEPENDENT = frozenset({"aten::roll", "aten::unfold", "aten::im2col", "aten::diagonal"})
_PADS = frozenset({"aten::pad", "aten::constant_pad_nd"})
_SHAPED_LIKE = frozenset({"aten::expand_as", "aten::view_as", "aten::reshape_as"})
_REPEATS = frozenset({"aten::expand", "aten::broadcast_to"})
_SHUFFLES = frozenset({"aten::channel_shuffle", "aten::native_channel_shuffle"})
_SPLITS = frozenset({"aten::chunk", "aten::unsafe_chunk", "aten::split", "aten::unsafe_split"})


@rule(
    "view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten", "ravel", "permute",
    "transpose", "t", "numpy_T", "mT", "adjoint", "swapaxes", "swapdims", "movedim", "moveaxis",
    "squeeze", "unsqueeze", "cat", "concat", "concatenate", "stack", "chunk", "unsafe_chunk",
    "split",
    "unsafe_split", "split_with_sizes", "tensor_split", "slice", "select", "narrow", "unbind",
    "expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave", "roll", "flip",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    "constant_pad_nd", "pad", "view_as",
    "reshape_as", "unfold", "diagonal", "hstack", "vstack",
)  # fmt: skip
def movement(tracker: Tracker, step: Step) -> None:
    """Run the operator on the labels."""
    operands = [value for value in step.tensors() if value.shape]
    if step.kind in _SHUFFLES:
        _equal_groups(tracker, step)
    if step.kind == "aten::repeat_interleave" and isinstance(step.argument("repeats"), TensorValue):
        _counted(tracker, step)
        return
    outputs = list(flatten(step.outputs))
    results: list[list[Dimension]] = [[None] * len(output.shape) for output in outputs]
    if step.kind in _SHAPED_LIKE:
        operands = operands[:1]
    if step.kind == "aten::pad" and step.argument("mode") not in (None, "constant"):
        _freeze_padded(tracker, step)
    rank = max((len(value.shape) for value in operands), default=0)
    for dim in range(rank):
        rows = max(_rows(tracker, value, dim) for value in operands)
        for row in range(rows):
            _move(tracker, step, operands, at=(dim, row), outputs=outputs, results=results)
    if step.kind in _SPLITS and not isinstance(step.arguments[1], list):
        _equal_parts(tracker, step, results)
    if step.kind in _SHAPED_LIKE:
        _shape_like(tracker, step, operands[0], results[0])
    if step.kind in _REPEATS:
        _widened(tracker, operands[0], outputs[0], results[0])
    for output, moved in zip(outputs, results, strict=True):
        tracker.assign(output, moved)


def _shape_like(tracker: Tracker, step: Step, value: TensorValue, moved: list[Dimension]) -> None:
    """The result is as long as the other tensor along every dimension."""
    other = step.arguments[1]
    repeated = step.kind == "aten::expand_as"
    for dim, wanted in enumerate(tracker.labels(other)):
        own = dim - len(moved) + len(value.shape)
        if repeated and (own < 0 or value.shape[own] != other.shape[dim]):
            moved[dim] = wanted  # one value for every index: it follows whatever they do
        elif moved[dim] is not None or wanted is not None:
            tracker.unite(moved[dim], wanted, step, "given the shape of another tensor")


def _widened(
    tracker: Tracker, value: TensorValue, output: TensorValue, moved: list[Dimension]
) -> None:
    """One map repeated for every channel (dimension 1) has as many as what it meets.

    Other dimensions that are repeated are samples, positions or copies of heads.
    """
    before = len(value.shape) - len(output.shape) + 1
    if len(output.shape) < 2 or moved[1] is not None or output.shape[1] == 1:
        return
    if before < 0 or value.shape[before] == 1:
        moved[1] = tracker.space.allocate("", 1, output.shape[1])


def _rows(tracker: Tracker, value: TensorValue, dim: int) -> int:
    """How many label vectors lie along a dimension."""
    labels = tracker.merged_labels(value)[dim] if dim < len(value.shape) else None
    return 0 if labels is None else 1 if labels.ndim == 1 else len(labels)


def _row(tracker: Tracker, value: TensorValue, at: tuple[int, int]) -> Dimension:
    dim, row = at
    labels = tracker.merged_labels(value)[dim]
    if labels is None or labels.ndim == 1:
        return labels if row == 0 else None
    return labels[row] if row < len(labels) else None


def _move(
    tracker: Tracker,
    step: Step,
    operands: list[TensorValue],
    *,
    at: tuple[int, int],
    outputs: list[TensorValue],
    results: list[list[Dimension]],
) -> None:
    """Follow one row of the labels that lie along one input dimension."""
    dim = at[0]
    labelled = {
        value.number: _row(tracker, value, at) for value in operands if dim < len(value.shape)
    }
    if step.kind in _PADS:
        _pad(step, labelled[operands[0].number], dim, results[0])
        return
    kept = _kept_dimensions(step, operands, dim)
    try:
        moved = _run_on_labels(step, labelled, dim, kept)
    except (RuntimeError, EngineError) as error:
        for own in labelled.values():
            tracker.freeze(own, step, f"labels could not follow: {str(error).splitlines()[0]}")
        return
    for output, result, labels in zip(outputs, moved, results, strict=True):
        if not result.numel():
            place_in_empty(tracker, step, labelled, labels, along=_one_dimension(step, dim, labels))
        elif step.kind in _POSITION_DEPENDENT and not _unmoved(
            result, labelled[operands[0].number], dim
        ):
            tracker.freeze(result.numpy().reshape(-1), step, "values move by their position")
        else:
            place(tracker, step, output, result, labels)


def _kept_dimensions(step: Step, operands: list[TensorValue], dim: int) -> set[int] | None:
    """Dimensions that must keep their length, or None for all."""
    if step.kind not in _ALONG_ONE_DIMENSION:
        return None
    rank = len(operands[0].shape)
    along = step.argument("dim", step.argument("axis", 0))
    if not isinstance(along, int) or any(len(value.shape) != rank for value in operands):
        return None
    return {dim, along % rank}


def _run_on_labels(
    step: Step, labelled: dict[int, Dimension], dim: int, kept: set[int] | None
) -> list[torch.Tensor]:
    def as_labels(value: TensorValue) -> torch.Tensor:
        if not value.shape or value.number not in labelled:
            if value.value is not None:
                return value.value
            return torch.zeros((), dtype=torch.int64).expand(value.shape)
        shape = [
            size if kept is None or position in kept else 1
            for position, size in enumerate(value.shape)
        ]
        labels = labelled[value.number]
        if labels is None:
            return torch.zeros((), dtype=torch.int64).expand(shape)
        ones = [1] * len(shape)
        ones[dim] = labels.size
        return torch.from_numpy(labels).reshape(ones).expand(shape)

    arguments = _convert_values(step.arguments, as_labels)
    kind = step.kind
    if kind in {"aten::view", "aten::_unsafe_view", "aten::view_as"}:
        size = arguments[1].shape if kind == "aten::view_as" else arguments[1]
        produced: Any = arguments[0].reshape(size)
    else:
        produced = run_operator(step.instruction, arguments)
    listed = produced if len(step.outputs) > 1 else [produced]
    return tensors_in(listed)


def _convert_values(value: Any, change: Any) -> Any:
    if isinstance(value, TensorValue):
        return change(value)
    if isinstance(value, list):
        return [_convert_values(item, change) for item in value]
    if isinstance(value, tuple):
        return tuple(_convert_values(item, change) for item in value)
    return value


def _pad(step: Step, labels: Dimension, dim: int, result: list[Dimension]) -> None:
    """Padding adds (or, negative, cuts) positions at both ends; what is added is no channel."""
    if labels is None:
        return
    amounts = [int(amount) for amount in step.arguments[1]]
    place = 2 * (len(result) - 1 - dim)
    for end, amount in enumerate(amounts[place : place + 2]):
        if amount < 0:
            labels = labels[-amount:] if end == 0 else labels[:amount]
        else:
            fixed = np.zeros(amount, np.int64)
            labels = np.concatenate([fixed, labels] if end == 0 else [labels, fixed])
    known = result[dim]
    result[dim] = labels if known is None else np.vstack([known, labels])


def _equal_parts(tracker: Tracker, step: Step, results: list[list[Dimension]]) -> None:
    """chunk and split cut into equal parts, so the same positions leave every part."""
    if not results:
        return
    rank = len(results[0])
    dim = int(step.argument("dim", 0)) % rank
    first = results[0][dim]
    if first is None:
        return
    if first.ndim > 1 or any(x[dim] is not None and x[dim].ndim > 1 for x in results):  # type: ignore[union-attr]
        for labels in results:
            tracker.freeze(labels[dim], step, "merged dimensions cut into equal parts")
        return
    for labels in results[1:]:
        other = labels[dim]
        if other is None:
            tracker.freeze(first, step, "cut into equal parts")
        else:
            tracker.unite(first[: other.size], other, step, "cut into equal parts")


def _equal_groups(tracker: Tracker, step: Step) -> None:
    """A shuffle deals out groups of equal size, so the same positions leave every group."""
    labels = tracker.labels(step.arguments[0])[1]
    if labels is not None:
        table = labels.reshape(int(step.arguments[1]), -1)
        for group in table[1:]:
            tracker.unite(table[0], group, step, "shuffled in groups of equal size")


def _counted(tracker: Tracker, step: Step) -> None:
    """A tensor says how often each index is repeated: those indices stay, the others pass."""
    value, output = step.arguments[0], step.outputs[0]
    dim = step.argument("dim")
    labels = tracker.labels(value)
    if dim is None or not isinstance(value, TensorValue) or len(step.tensors()) == 1:
        for own in labels:  # the values of a vector of counts, or a flattened tensor
            tracker.freeze(own, step, "repeated by a tensor of counts")
        tracker.assign(output, [None] * len(output.shape))
        return
    dim = int(dim) % len(labels)
    tracker.freeze(labels[dim], step, "repeated by a tensor of counts")
    labels[dim] = None
    tracker.assign(output, labels)


def _freeze_padded(tracker: Tracker, step: Step) -> None:
    value = step.arguments[0]
    labels = tracker.labels(value)
    padded = len(step.arguments[1]) // 2
    for dim in range(len(labels) - padded, len(labels)):
        tracker.freeze(labels[dim], step, "padded with its own values")


def _one_dimension(step: Step, dim: int, labels: list[Dimension]) -> int | None:
    """The labelled dimension, where the operator works along another one alone."""
    if step.kind not in _ALONG_ONE_DIMENSION:
        return None
    ranks = {len(value.shape) for value in step.tensors() if value.shape}
    along = int(step.argument("dim", 0)) % max(len(labels), 1)
    return dim if ranks == {len(labels)} and along != dim else None


def _unmoved(result: torch.Tensor, labels: Dimension, dim: int) -> bool:
    """Whether the labels lie along the same dimension in the same order as before."""
    if labels is None or result.dim() <= dim or result.shape[dim] != labels.size:
        return False
    shape = [1] * result.dim()
    shape[dim] = -1
    return torch.equal(result, torch.from_numpy(labels).reshape(shape).expand_as(result))
