r"""Activations rounded to the integers they will be, in a program that is trained.

A value x is replaced, for all that read it later, by the number its integer stands for:

.. math:: \hat x = s (\mathrm{clamp}(\mathrm{round}(x / s) + z, q_{min}, q_{max}) - z)

with scale s and zero point z from a range [a, b] that holds zero, :math:`s = (b - a) / (q_{max} -
q_{min})` and z the integer of zero, so that zero is exact. While training the range follows the
values, :math:`a \leftarrow a + c (\min x - a)` and b likewise with the largest (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3.1); in evaluation it stays. The gradient passes where x lies inside the range and is zero
outside.

All of this is one operator of torch, `fused_moving_avg_obs_fake_quant`, whose state lies in buffers
of the program: training, checkpoints and processes that train together treat them as the running
statistics of BatchNorm. Its operand `observer_on` is a constant of the graph, zero here and one in
a training copy. The operator takes float32, so values of lower precision are widened first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.torchscript.instructions import walk
from engine.torchscript.program import Program

FAKE_QUANTISE = "aten::fused_moving_avg_obs_fake_quant"
"""The operator."""

HOLDER = "fake_quantised"
"""The module that holds the buffers."""

SMOOTHING = 0.01
"""c, what a step moves a range by."""

_BUFFERS = ("low", "high", "scale", "zero_point")


@dataclass(frozen=True)
class Rounded:
    """A value to round.

    Attributes:
        value: its number in the program's block: of an input, or of an instruction's output.
        low, high: its range at the start, finite.
        smallest, largest: integers that it may become.
    """

    value: int
    low: float
    high: float
    smallest: int = 0
    largest: int = 255


@dataclass(frozen=True)
class IntegerGrid:
    """How a value becomes integers.

    Attributes:
        scale: the number that one step stands for.
        zero_point: the integer of zero.
        low, high: the range that they are from.
    """

    scale: float
    zero_point: int
    low: float
    high: float


def with_fake_quantise(program: Program, points: Mapping[str, Rounded]) -> Program:
    """The program over the same weights, with some values rounded as soon as they are computed.

    Args:
        program: in evaluation mode, float32; it stays as it is.
        points: by a name without dots.

    Returns:
        A program to train and to evaluate; to go back, take its weights over by name.
    """
    fresh = program.copy(share=True)
    held = nn.Module()
    for name, point in points.items():
        one = nn.Module()
        for buffer, tensor in zip(_BUFFERS, _begun(point), strict=True):
            one.register_buffer(buffer, tensor.to(program.device))
        held.add_module(name, one)
    holder: Any = torch.jit.script(held.eval())
    place = HOLDER
    while fresh._c.hasattr(place):
        place += "_"
    fresh._c._register_attribute(place, holder._c._type(), holder._c)
    writer = _Writer(fresh, place, holder._c)
    for name, point in points.items():
        writer.round(name, point)
    fresh.edited()
    found = Program(fresh._c, fresh.device, fresh.calls)
    found.followed = fresh.followed
    return found


def buffers_of(program: Program) -> dict[str, Tensor]:
    """The ranges and grids of a program with rounded values, by name of the buffer."""
    ends = tuple(f".{buffer}" for buffer in _BUFFERS)
    return {
        name: tensor
        for name, tensor in program.buffers().items()
        if name.startswith(HOLDER) and name.endswith(ends)
    }


def grids_of(program: Program, points: Mapping[str, Rounded]) -> dict[str, IntegerGrid]:
    """The grids that values are rounded to, by the names of the points."""
    found = {}
    for name in points:
        held = {
            path.rpartition(".")[2]: tensor
            for path, tensor in buffers_of(program).items()
            if path.split(".")[1] == name
        }
        found[name] = IntegerGrid(
            scale=float(held["scale"]),
            zero_point=int(held["zero_point"]),
            low=float(held["low"]),
            high=float(held["high"]),
        )
    return found


def flag(on: bool, device: str) -> Tensor:
    """An operand that switches the observer or the rounding on or off: int64 [1]."""
    return torch.tensor([int(on)], device=device)


def _begun(point: Rounded) -> tuple[Tensor, ...]:
    """The buffers of a range, by the operator itself."""
    low, high = torch.tensor(float("inf")), torch.tensor(float("-inf"))
    scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    on = torch.ones(1, dtype=torch.int64)
    seen = torch.tensor([point.low, point.high], dtype=torch.float32)
    torch.fused_moving_avg_obs_fake_quant(
        seen, on, on, low, high, scale, zero_point, 1.0, point.smallest, point.largest, -1
    )
    return low, high, scale, zero_point


class _Writer:
    """Writes the operator into the graph of forward.

    Args:
        program: a fresh copy.
        place: what its module calls the module of the buffers.
        holder: that module.
    """

    def __init__(self, program: Program, place: str, holder: Any) -> None:
        self._program = program
        self._place = place
        self._holder = holder
        self._graph = program.graph
        self._last: Any = None
        # Nodes are found by their order, which holds until the first edit.
        self._nodes = {one.index: program.place(one)[0] for one in walk(program.block)}
        self._producers = {
            value: (instruction, output)
            for instruction in walk(program.block)
            for output, value in enumerate(instruction.outputs)
        }

    def round(self, name: str, point: Rounded) -> None:
        """Round a value, for all that read it after the node that computes it."""
        value = self._begin(point.value)
        itself = next(iter(self._graph.inputs()))
        own = self._holder.getattr(name)
        kind = torch._C.TensorType.get()
        holder = self._read(itself, self._place, self._holder._type())
        held = self._read(holder, name, own._type())
        low, high, scale, zero = (self._read(held, buffer, kind) for buffer in _BUFFERS)
        insert = self._graph.insertConstant
        types = [insert(one) for one in (torch.float32, False, False, None)]
        wide = self._append("aten::to", [value, *types])
        flags = [insert(flag(on, self._program.device)) for on in (False, True)]
        numbers = [
            insert(one) for one in (SMOOTHING, point.smallest, point.largest, -1, False, False)
        ]
        rounded = self._append(FAKE_QUANTISE, [wide, *flags, low, high, scale, zero, *numbers])
        value.replaceAllUsesAfterNodeWith(rounded.node(), rounded)

    def _begin(self, number: int) -> Any:
        """Find a value; constants go in front of what computes it, and nodes behind that."""
        block = self._program.block
        if number in block.inputs:
            first = next(iter(self._graph.nodes()))
            self._graph.setInsertPoint(first)
            self._last = self._graph.insertConstant(None).node()
            self._graph.setInsertPoint(self._last)
            return list(self._graph.inputs())[block.inputs.index(number)]
        instruction, output = self._producers[number]
        self._last = self._nodes[instruction.index]
        self._graph.setInsertPoint(self._last)
        return self._last.outputsAt(output)

    def _read(self, owner: Any, name: str, kind: Any) -> Any:
        made = self._graph.create("prim::GetAttr", [owner], 1)
        made.s_("name", name)
        return self._placed(made, kind)

    def _append(self, kind: str, operands: list[Any]) -> Any:
        return self._placed(self._graph.create(kind, operands, 1), torch._C.TensorType.get())

    def _placed(self, node: Any, kind: Any) -> Any:
        node.output().setType(kind)
        node.insertAfter(self._last)
        self._last = node
        return node.output()
