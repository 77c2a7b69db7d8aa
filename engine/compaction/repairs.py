"""How baked operands follow a removal, operator by operator.

A handler compares the operands of the compact run with what the coupling expects and notes
edits. Operands computed at run time from a shape are right by themselves and stay computed, so
batch, sequence and image size remain as dynamic as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engine.compaction.survivors import Survivors
from engine.coupling import Coupling
from engine.coupling.labels import Dimension
from engine.coupling.rules.indexing import known_indices
from engine.tape import Step, TensorValue
from engine.torchscript.edit import Size

_END = 2**62
"""Slice bounds beyond this mean `to the end`."""


@dataclass
class Repair:
    """One step of the compact run on its way to being repaired.

    Attributes:
        step: the original step.
        arguments: what the compact run passes; handlers put repaired values in.
        expected: shapes the outputs must have.
        edits: operand position to a new constant, or to {item: Size} of a list operand.
        considered: positions a handler looked at, whether or not it had to edit them.
    """

    step: Step
    arguments: list[Any]
    expected: list[tuple[int, ...]]
    coupling: Coupling
    survivors: Survivors
    edits: dict[int, Any] = field(default_factory=dict)
    considered: list[int] = field(default_factory=list)

    def set_scalar(self, position: int, value: Any) -> None:
        """An operand must have this value."""
        self.considered.append(position)
        if _differs(self.arguments[position], value):
            self.arguments[position] = value
            self.edits[position] = value

    def set_items(self, position: int, values: list[int]) -> None:
        """A list operand must have these items; -1 stands for itself and is left alone."""
        self.considered.append(position)
        current = self.arguments[position]
        changed = {
            index: value
            for index, (value, given) in enumerate(zip(values, current, strict=True))
            if given not in (value, -1)
        }
        if changed:
            self.edits[position] = {
                index: Size(wanted, int(current[index])) for index, wanted in changed.items()
            }
            self.arguments[position] = [changed.get(i, given) for i, given in enumerate(current)]

    def set_tensor(self, position: int, value: torch.Tensor, item: int | None = None) -> None:
        """An operand, or one item of a list operand, must be this table of integers."""
        self.considered.append(position)
        given = self.arguments[position] if item is None else self.arguments[position][item]
        placed = value.to(given.device)
        if item is None:
            self.arguments[position] = placed
            self.edits[position] = value
        else:
            self.arguments[position] = [
                placed if index == item else own
                for index, own in enumerate(self.arguments[position])
            ]
            self.edits[position] = {item: value}

    def labels(self, value: TensorValue, dim: int) -> Dimension:
        """Components along one dimension of an original tensor."""
        return self.coupling.labels.get(value.number, [None] * len(value.shape))[dim]

    def count(self, value: TensorValue, dim: int, stop: int) -> int:
        """Survivors among the first `stop` indices of a dimension."""
        mask = self.survivors.mask(self.labels(value, dim), value.shape[dim])
        return int(mask[:stop].sum())


def _differs(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return not torch.equal(torch.as_tensor(left), torch.as_tensor(right))
    return bool(left != right)


Handler = Callable[[Repair], None]
REPAIRS: dict[str, Handler] = {}


def repair(*kinds: str) -> Callable[[Handler], Handler]:
    """Register a handler by operator name."""

    def register(handler: Handler) -> Handler:
        for kind in kinds:
            if f"aten::{kind}" in REPAIRS:
                raise ValueError(f"aten::{kind} has a repair already")
            REPAIRS[f"aten::{kind}"] = handler
        return handler

    return register


@repair("view", "reshape", "_unsafe_view", "expand", "broadcast_to", "_reshape_alias")
def sizes(item: Repair) -> None:
    """The size list is the expected output shape."""
    item.set_items(1, list(item.expected[0]))


@repair("unflatten")
def unflatten(item: Repair) -> None:
    """The sizes one dimension unfolds into."""
    value, dim = item.step.arguments[0], int(item.step.arguments[1])
    dim %= len(value.shape)
    length = len(item.arguments[2])
    item.set_items(2, list(item.expected[0][dim : dim + length]))


@repair("split_with_sizes")
def split_with_sizes(item: Repair) -> None:
    """The sizes of the parts along the split dimension."""
    value = item.step.arguments[0]
    dim = int(item.step.argument("dim", 0)) % len(value.shape)
    item.set_items(1, [shape[dim] for shape in item.expected])


@repair("split", "unsafe_split")
def split(item: Repair) -> None:
    """The size of every part but the last."""
    value = item.step.arguments[0]
    dim = int(item.step.argument("dim", 0)) % len(value.shape)
    if isinstance(item.arguments[1], list):
        item.set_items(1, [shape[dim] for shape in item.expected])
    elif item.labels(value, dim) is not None:
        item.set_scalar(1, item.expected[0][dim])


@repair("slice")
def slice_bounds(item: Repair) -> None:
    """Bounds count survivors."""
    value = item.step.arguments[0]
    dim = int(item.step.argument("dim", 0)) % max(len(value.shape), 1)
    if item.labels(value, dim) is None:
        return
    size = value.shape[dim]
    for name, default in (("start", 0), ("end", _END)):
        bound = item.step.argument(name)
        position = item.step.position(name)
        if bound is None or bound >= _END or (name == "end" and bound >= size):
            continue
        absolute = min(max(bound + size if bound < 0 else bound, 0), size)
        wanted = item.count(value, dim, absolute)
        given = item.arguments[position]
        now = item.count(value, dim, size)
        given = default if given is None else given
        if (given + now if given < 0 else min(given, now)) != wanted:
            item.set_scalar(position, wanted)
        else:
            item.considered.append(position)


@repair("narrow")
def narrow(item: Repair) -> None:
    """Start and length count survivors."""
    value, dim, start, length = item.step.arguments[:4]
    dim = int(dim) % len(value.shape)
    if item.labels(value, dim) is None or isinstance(start, TensorValue):
        return
    start = start + value.shape[dim] if start < 0 else start
    before = item.count(value, dim, start)
    item.set_scalar(2, before)
    item.set_scalar(3, item.count(value, dim, start + length) - before)


@repair("select")
def select(item: Repair) -> None:
    """The picked index survives; those before it may not."""
    value, dim, index = item.step.arguments[:3]
    dim = int(dim) % len(value.shape)
    if item.labels(value, dim) is None:
        return
    index = index + value.shape[dim] if index < 0 else index
    item.set_scalar(2, item.count(value, dim, index))


@repair(
    "conv1d", "conv2d", "conv3d", "_convolution", "convolution", "_convolution_mode",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip
def convolution(item: Repair) -> None:
    """A depthwise convolution has as many groups as channels."""
    value, groups = item.step.arguments[0], int(item.step.argument("groups", 1))
    weight = item.step.arguments[1]
    channel = 1 if len(value.shape) == len(weight.shape) else 0
    if groups > 1 and groups == value.shape[channel] and weight.shape[1] == 1:
        item.set_scalar(item.step.position("groups"), item.count(value, channel, groups))


@repair("index_select")
def index_select(item: Repair) -> None:
    """Indices count survivors."""
    value, dim, index = item.step.arguments[:3]
    positions = surviving_positions(item, value, int(dim) % max(len(value.shape), 1), index)
    if positions is not None:
        item.set_tensor(2, positions)


@repair("index", "_unsafe_index")
def index(item: Repair) -> None:
    """Indices count survivors."""
    indices = item.step.arguments[1]
    placed = [place for place, value in enumerate(indices) if isinstance(value, TensorValue)]
    if len(placed) == 1 and len(indices[placed[0]].shape) == 1:
        dim = placed[0]
        positions = surviving_positions(item, item.step.arguments[0], dim, indices[dim])
        if positions is not None:
            item.set_tensor(1, positions, dim)


def surviving_positions(
    item: Repair, value: TensorValue, dim: int, index: TensorValue
) -> torch.Tensor | None:
    """What a known vector of indices must be after the removal, or None when nothing changes."""
    if item.labels(value, dim) is None:
        return None
    mask = item.survivors.mask(item.labels(value, dim), value.shape[dim])
    positions = known_indices(index, value.shape[dim])
    if positions is None or mask.all():
        return None
    renumbered = np.cumsum(mask) - 1
    return torch.from_numpy(renumbered[positions[mask[positions]]])


@repair("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def normalized_shape(item: Repair) -> None:
    """The trailing dimensions of the input."""
    position = item.step.position("normalized_shape")
    length = len(item.arguments[position])
    item.set_items(position, list(item.expected[0][-length:]))


@repair("scaled_dot_product_attention")
def attention(item: Repair) -> None:
    """Without a scale it is 1/sqrt(width of the query); the original one is the meaning."""
    query = item.step.arguments[0]
    position = item.step.position("scale")
    before, now = query.shape[-1], int(item.arguments[0].shape[-1])
    if item.arguments[position] is None and before != now:
        item.set_scalar(position, 1.0 / math.sqrt(before))
    elif item.arguments[position] is not None:
        item.set_scalar(position, item.step.arguments[position])


@repair(
    "zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full",
    "new_empty",
)  # fmt: skip
def factory(item: Repair) -> None:
    """A made tensor has the sizes it had, and the value."""
    position = next(i for i, value in enumerate(item.arguments) if isinstance(value, list))
    item.set_items(position, list(item.expected[0]))
    keep_scalars(item)


@repair("where", "masked_fill", "rsub", "fill", "full_like")
def filled(item: Repair) -> None:
    """Not every overload of these is tagged pointwise; the number they write keeps its value."""
    keep_scalars(item)


@repair("arange", "linspace", "eye")
def arange(item: Repair) -> None:
    """The numbers a range was made of."""
    keep_scalars(item)


def keep_fractions(item: Repair) -> None:
    """A fraction is never a size: scales and factors keep their value in every operator."""
    for position, (before, now) in enumerate(zip(item.step.arguments, item.arguments, strict=True)):
        if isinstance(before, float) and isinstance(now, float) and before != now:
            item.set_scalar(position, before)


def keep_scalars(item: Repair) -> None:
    """Numbers that enter arithmetic keep their value, even when computed from a size."""
    for position, (before, now) in enumerate(zip(item.step.arguments, item.arguments, strict=True)):
        if isinstance(before, bool) or isinstance(now, bool):
            continue
        if isinstance(before, int | float) and isinstance(now, int | float):
            item.set_scalar(position, before)
        elif (
            isinstance(before, TensorValue)
            and before.value is not None
            and not before.shape
            and before.name is None
            and isinstance(now, torch.Tensor)
            and now.device.type != "meta"
        ):
            item.set_scalar(position, before.value)
