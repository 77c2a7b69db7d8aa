r"""Who reads a channel, and whether what it reads is a constant.

Let c be a component of the coupling and :math:`W_{:,c}` the columns by which a layer reads it.

* No output: :math:`W_{:,c} = 0` at every reader. What c holds is multiplied by zero, and c can go
  whatever it is.
* No input: the rows that produce c are zero, so that c holds its bias b at every sample, and after
  pointwise functions :math:`a = f(b)`. A reader then adds :math:`W_{:,c}\, a`, which can move into
  its bias. For a convolution that pads, only if a = 0: at the edge it reads zeros instead.

Both are read off the tape. A step that takes a channel and does not pass it on reads it; if it
does so without a weight (a sum, a product of two activations), or mixes channels, the channel is
alive. A step passes a constant on if all it takes is constant at that channel and it acts
on each element alone or moves elements; everything else is taken to depend on the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.coupling import Coupling
from engine.coupling.draws import draws
from engine.coupling.labels import Dimension
from engine.tape import Step, TensorValue, flatten
from engine.torchscript.program import Program

Flags = npt.NDArray[np.bool_]

_MOVES = frozenset(
    f"aten::{name}"
    for name in (
        "view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous",
        "clone", "detach", "to", "mean", "max_pool1d", "max_pool2d", "max_pool3d",
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    )
)  # fmt: skip
"""Operators besides pointwise ones after which a constant channel holds the same constant."""
_ASKS = frozenset(
    f"aten::{name}"
    for name in (
        "dim", "size", "numel", "len", "stride", "is_floating_point", "is_complex",
        "is_contiguous", "get_device",
    )
)  # fmt: skip
"""Operators that ask for a shape or a type, and read no value."""
_LINEAR = "aten::linear"
_CONVOLUTIONS = ("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::_convolution")


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads channels through a weight.

    Attributes:
        position: of its step in the tape.
        value: what it reads, with the dimension of channels.
        channel_dim: of `value`.
        weight, bias: names; None where there is no bias to fold into.
        weight_dim: of the weight's inputs.
        components: int64, one per input; -1 where fixed.
        nonzero: by input, whether the column holds anything but zeros.
        constant: by input, whether what is read is a constant.
        pads: reads zeros at the edge instead of the channel.
    """

    position: int
    value: TensorValue
    channel_dim: int
    weight: str
    bias: str | None
    weight_dim: int
    components: npt.NDArray[np.int64]
    nonzero: Flags
    constant: Flags
    pads: bool


@dataclass(frozen=True, eq=False)
class Readers:
    """All readers of a tape.

    Attributes:
        layers: readers whose bias a constant can be folded into, and those that read only zeros.
        alive: by component, read in a way that nothing can replace.
        read: by component, whether any reader is known.
    """

    layers: list[Reader]
    alive: Flags
    read: Flags


def find_readers(program: Program, coupling: Coupling) -> Readers:
    """Follow every component along the tape.

    Args:
        program: the joint program of the coupling, whose weights are looked at.
    """
    return _Walk(program, coupling).run()


class _Walk:
    def __init__(self, program: Program, coupling: Coupling) -> None:
        self._coupling = coupling
        self._tensors = program.tensors()
        count = coupling.component_count
        self._alive = np.zeros(count, bool)
        self._read = np.zeros(count, bool)
        self._roots: dict[int, tuple[str, ...]] = {}
        self._constant: dict[int, Flags] = {}
        self._layers: list[Reader] = []
        self._uses: dict[str, int] = {}
        self._inputs = {(item.tensor, item.dim) for item in coupling.slices if item.role == "input"}

    def run(self) -> Readers:
        for _, components in self._coupling.mixing:
            self._alive[components] = True
        for step in self._coupling.tape.steps:
            for value in step.tensors():
                if value.name is not None:
                    self._roots[value.number] = (value.name,)
                    self._uses[value.name] = self._uses.get(value.name, 0) + 1
        for position, step in enumerate(self._coupling.tape.steps):
            self._follow(position, step)
        return Readers(self._layers, self._alive, self._read)

    def _follow(self, position: int, step: Step) -> None:
        if step.kind in _ASKS:
            return
        taken = [value for value in step.tensors() if value.number not in self._roots]
        weights = [value for value in step.tensors() if value.number in self._roots]
        outputs = list(flatten(step.outputs))
        if not taken and draws(step):
            return
        if not taken:
            roots = tuple(name for value in weights for name in self._roots[value.number])
            self._roots.update(dict.fromkeys((value.number for value in outputs), roots))
            return
        carried, passed = self._holding(taken), self._holding(outputs)
        reader = self._reader(position, step)
        if reader is not None:
            self._layers.append(reader)
            through = np.zeros_like(self._alive)
            through[reader.components[reader.components >= 0]] = True
            self._read |= through
            self._alive |= carried & ~passed & ~through
        else:
            through = self._columns(weights, carried, passed)
            self._read |= through
            self._alive |= carried & ~passed & ~through
        self._pass_constants(step, taken, weights, outputs)

    def _columns(self, weights: list[TensorValue], carried: Flags, passed: Flags) -> Flags:
        """Components read by weights that nothing can be folded into; alive unless all zero."""
        through = np.zeros_like(self._alive)
        for name in (name for value in weights for name in self._roots[value.number]):
            value = self._coupling.tape.tensors[name]
            for dim, own in enumerate(self._labels(value)):
                if own is None:
                    continue
                reads = carried & (~passed if (name, dim) not in self._inputs else True)
                for row in np.atleast_2d(own):
                    found = (row >= 0) & reads[row]
                    if not found.any():
                        continue
                    through[row[found]] = True
                    self._alive[row[found & self._nonzero(name, dim)]] = True
        return through

    def _reader(self, position: int, step: Step) -> Reader | None:
        """The step as a layer with named weights, where a constant can be folded into it."""
        weight, bias = step.argument("weight"), step.argument("bias")
        value = step.arguments[0] if step.arguments else None
        if not isinstance(weight, TensorValue) or not isinstance(value, TensorValue):
            return None
        if step.kind == _LINEAR and len(weight.shape) == 2:
            channel, pads = len(value.shape) - 1, False
        elif step.kind in _CONVOLUTIONS and _plain(step):
            channel = 1 if len(value.shape) == len(weight.shape) else 0
            pads = step.argument("padding", 0) not in (0, [0], [0, 0], [0, 0, 0], "valid")
        else:
            return None
        if weight.name is None or weight.name not in self._tensors:
            return None
        own = self._labels(weight)[1]
        if own is None or own.ndim != 1:
            return None
        foldable = (
            isinstance(bias, TensorValue) and self._alone(bias.name) and self._alone(weight.name)
        )
        constant = self._constant.get(value.number)
        return Reader(
            position=position,
            value=value,
            channel_dim=channel,
            weight=weight.name,
            bias=bias.name if foldable else None,
            weight_dim=1,
            components=own.astype(np.int64),
            nonzero=self._nonzero(weight.name, 1),
            constant=np.zeros(own.size, bool) if constant is None else (own >= 0) & constant[own],
            pads=pads,
        )

    def _pass_constants(
        self,
        step: Step,
        taken: list[TensorValue],
        weights: list[TensorValue],
        outputs: list[TensorValue],
    ) -> None:
        constant = self._constants_of(step, taken, weights, outputs)
        operator = step.instruction.operator
        alone = len(step.tensors()) == 1 and operator is not None and operator.pointwise
        if step.instruction.kind.endswith("_") and not alone and not constant.all():
            # Other names of the same memory may hold data from here on.
            self._constant.clear()
        for value in outputs:
            self._constant[value.number] = constant

    def _constants_of(
        self,
        step: Step,
        taken: list[TensorValue],
        weights: list[TensorValue],
        outputs: list[TensorValue],
    ) -> Flags:
        held = self._holding(outputs)
        none = np.zeros_like(held)
        produced = self._produced(step)
        if produced is not None:
            return held & produced
        operator = step.instruction.operator
        pointwise = operator is not None and operator.pointwise
        normalises = step.kind == "aten::batch_norm" and not step.argument("training", True)
        passes = pointwise or normalises or step.kind in _MOVES or step.kind == "aten::dropout"
        if not passes or draws(step):
            return none
        if not normalises and any(sum(size > 1 for size in own.shape) > 1 for own in weights):
            return none  # a table added by position is not the same everywhere
        found = held
        for value in taken:
            found = found & self._constant.get(value.number, none)
        return found

    def _produced(self, step: Step) -> Flags | None:
        """For a layer: the components whose rows are zero, so that only the bias is left."""
        weight = step.argument("weight")
        plain = step.kind == _LINEAR or (
            step.kind in _CONVOLUTIONS and not step.argument("transposed", False)
        )
        if not plain or not isinstance(weight, TensorValue) or weight.name is None:
            return None
        zero = np.zeros_like(self._alive)
        own = self._labels(weight)[0]
        bias = step.argument("bias")
        named = bias is None or (isinstance(bias, TensorValue) and bias.number in self._roots)
        if own is None or own.ndim != 1 or not named or weight.name not in self._tensors:
            return zero
        nonzero = self._nonzero(weight.name, 0)
        zero[own[own >= 0]] = True
        zero[own[(own >= 0) & nonzero]] = False
        return zero

    def _nonzero(self, name: str, dim: int) -> Flags:
        tensor = self._tensors[name].detach()
        flags: Flags = (
            (tensor != 0).movedim(dim, 0).reshape(tensor.shape[dim], -1).any(1).cpu().numpy()
        )
        return flags

    def _alone(self, name: str | None) -> bool:
        """Whether a weight has one name and one use, so that changing it changes one layer."""
        if name is None or name not in self._tensors:
            return False
        return self._uses[name] == 1 and len(self._coupling.tape.aliases.get(name, [name])) == 1

    def _labels(self, value: TensorValue) -> list[Dimension]:
        return self._coupling.labels.get(value.number, [None] * len(value.shape))

    def _holding(self, values: Iterable[TensorValue]) -> Flags:
        held = np.zeros_like(self._alive)
        for value in values:
            for own in self._labels(value):
                if own is not None:
                    held[own[own >= 0]] = True
        return held


def _plain(step: Step) -> bool:
    return int(step.argument("groups", 1)) == 1 and not step.argument("transposed", False)


def constant_of(values: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The value each channel holds, and whether it is the same at every place.

    Args:
        values: an activation.
        dim: of its channels.
    """
    rows = values.movedim(dim, 0).flatten(1)
    low, high = rows.amin(1), rows.amax(1)
    return low, (high - low) <= 1e-12 * (1 + high.abs())
