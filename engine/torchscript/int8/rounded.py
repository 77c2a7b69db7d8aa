"""What a program computes in static int8, written with operators in floating point.

The graph is lowered to int8 as for the file, and every int8 operator is then written as the one in
floating point that it stands for, on operands that are exact multiples of their scales, with its
result rounded to the scale and zero point that the int8 operator has:

    quantized::conv2d_relu(x, packed, s, z)  ->  round(relu(conv2d(x, weight, bias)); s, z)

where the weight is rounded channel by channel. Rounding is `fake_quantize_per_tensor_affine` and
`fake_quantize_per_channel_affine`, which formats with quantised tensors of their own know. So a
value is rounded where the file rounds it, nowhere else, and for the readers that read integers in
the file. Sums of products are exact integers there and float32 here: results differ where a value
lies so near the middle of two steps that this decides between them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.errors import UnsupportedOperator
from engine.quantisation.int8.weights import LARGEST, CodedWeight
from engine.torchscript.int8.lowering import Look, Lowering
from engine.torchscript.int8.operands import nodes_in
from engine.torchscript.int8.packed import PackedConvolution, PackedLinear, StoredWeight
from engine.torchscript.int8.rewriting import Rewriting, WeightStore
from engine.torchscript.int8.rules import RULES
from engine.torchscript.program import Program

Grid = tuple[float, int]
"""Scale and zero point."""

_AVERAGING = frozenset(
    f"aten::{name}" for name in ("mean", "avg_pool2d", "adaptive_avg_pool2d", "hardtanh")
)
"""Operators that keep the scale of what they read, and whose results are no multiples of it."""
_CONTAINERS = frozenset({"prim::TupleConstruct", "prim::ListConstruct", "prim::DictConstruct"})


@dataclass(frozen=True)
class RoundedProgram:
    """A program that rounds as the file in int8 does.

    Attributes:
        program: in floating point.
        output_step: the smallest scale of an output that is rounded; 0 where none is.
    """

    program: Program
    output_step: float


def rounded_program(
    prepared: Program, look: Look, excluded: Collection[str] = ()
) -> RoundedProgram:
    """Write the int8 arithmetic of a program in floating point.

    Args:
        prepared: on a CPU (see `engine.torchscript.int8.preparing`); it is left as it is.
        look: gives the range of a place.
        excluded: layers that stay as they are.

    Raises:
        UnsupportedOperator: layers quantise their inputs as they run, or the program had quantised
            operators before.
    """
    program, store = prepared.copy(), WeightStore()
    graph = program.graph
    for node in nodes_in(graph):
        if node.kind().startswith("quantized::") or node.kind() == "aten::quantize_per_tensor":
            raise UnsupportedOperator(
                f"the model had the quantised operator {node.kind()} before it was made int8",
                hint="upload the model in floating point",
            )
    lowering = Lowering(program, look, excluded, store)
    lowering.lower(RULES)
    torch._C._jit_pass_dce(graph)
    lowering.rewriting.store_rest()
    writer = _Writer(program, lowering.rewriting)
    for node in list(nodes_in(graph)):
        writer.visit(node)
    _require_none_left(lowering)
    step = writer.output_step()
    writer.finish()
    torch._C._jit_pass_dce(graph)
    program.edited()
    # Its list of tensors is from before the weights were added.
    fresh = Program(program._c, program.device, program.calls)
    fresh.followed = program.followed
    return RoundedProgram(fresh, step)


def _require_none_left(lowering: Lowering) -> None:
    kinds = {node.kind() for node in nodes_in(lowering.rewriting.graph)}
    left = sorted(kind for kind in kinds if kind.startswith(("quantized::", "aten::quantized_")))
    if not left:
        return
    layers = dict.fromkeys(
        f"`{one.name}`"
        for one in lowering.layers
        if one.form == "int8" and (one.reason or one.op in {"lstm", "gru"})
    )
    raise UnsupportedOperator(
        f"{', '.join(layers) or ', '.join(left)} quantise their inputs as they run, to 7 bits, "
        "which is not written in other formats",
        hint="exclude these layers from the int8 stage, or take the TorchScript file",
    )


class _Writer:
    """Writes floating point in the place of int8 operators, in the order of the graph."""

    def __init__(self, program: Program, rewriting: Rewriting) -> None:
        self._rewriting = rewriting
        self._fields: dict[int, str] = {}
        held = self._holder()
        self._kind = held._type()
        self._place = "rounded"
        while program._c.hasattr(self._place):
            self._place += "_"
        program._c._register_attribute(self._place, self._kind, held)
        self._grids: dict[int, Grid] = {}
        self._rounded: dict[int, Any] = {}
        graph = rewriting.graph
        graph.setInsertPoint(next(iter(graph.nodes())))
        self._front = graph.insertConstant(None).node()

    def _holder(self) -> Any:
        """A module with every weight as a parameter: exporters take all else for constants, whose
        rounding they carry out."""
        held, store = nn.Module(), self._rewriting.store
        for coded in (coded for packed in store.packed for coded, _ in packed.stored):
            if id(coded) in self._fields:
                continue
            name = store.name(coded).replace(".", "_")
            while hasattr(held, name):
                name += "_"
            held.register_parameter(name, nn.Parameter(coded.decode().contiguous(), False))
            self._fields[id(coded)] = name
        scripted: Any = torch.jit.script(held.eval())
        return scripted._c

    def visit(self, node: Any) -> None:
        """Replace a node, if it is of int8."""
        kind = node.kind()
        number = self._rewriting.number_read(node.output()) if node.outputsSize() == 1 else None
        if number is not None:
            packed = self._rewriting.store.packed[number]
            if isinstance(packed, StoredWeight):
                node.output().replaceAllUsesWith(self._weight(packed.weight))
        elif kind == "aten::quantize_per_tensor":
            self._give(node, node.inputsAt(0), (self._plain(node, 1), self._plain(node, 2)))
        elif kind.startswith("quantized::"):
            made = self._floating(node)
            if made is not None:
                last = node.inputsSize() - 2
                self._give(node, made, (self._plain(node, last), self._plain(node, last + 1)))
        else:
            self._moves(node)

    def output_step(self) -> float:
        """The smallest scale of an output, before `finish`."""
        return min(self._steps(list(self._rewriting.graph.outputs())), default=0.0)

    def _steps(self, values: list[Any]) -> Iterator[float]:
        for value in values:
            node = value.node()
            if node.kind() in _CONTAINERS or node.kind() == "aten::dequantize":
                yield from self._steps(list(node.inputs()))
            elif value.unique() in self._grids:
                yield self._grids[value.unique()][0]

    def finish(self) -> None:
        """Let readers in floating point read what is rounded."""
        for node in list(nodes_in(self._rewriting.graph)):
            if node.kind() == "aten::dequantize" and node.inputsAt(0).unique() in self._grids:
                node.output().replaceAllUsesWith(node.inputsAt(0))
                node.destroy()

    def _moves(self, node: Any) -> None:
        """What reads integers and keeps their scale; its result may have to be rounded again."""
        grid = self._grids.get(node.inputsAt(0).unique()) if node.inputsSize() else None
        if grid is None or node.kind() == "aten::dequantize":
            return
        for output in node.outputs():
            self._grids[output.unique()] = grid
        if node.kind() in _AVERAGING:
            rounded = self._round(node.output(), grid, node).node()
            rounded.moveAfter(node)
            node.output().replaceAllUsesAfterNodeWith(rounded, rounded.output())

    def _floating(self, node: Any) -> Any | None:
        """The operator in floating point, before its result is rounded."""
        name = node.kind().removeprefix("quantized::")
        relu = name.endswith("_relu") and name != "leaky_relu"
        name = name.removesuffix("_relu") if relu else name
        first = node.inputsAt(0)
        if name in {"conv1d", "conv2d", "conv3d", "linear"}:
            made = self._layer(node, name, first)
        elif name in {"add", "mul"}:
            scaled = [self._constant(1, node)] if name == "add" else []
            made = self._append(f"aten::{name}", [first, node.inputsAt(1), *scaled], node)
        elif name in {"cat", "leaky_relu"}:
            made = self._append(f"aten::{name}", [first, node.inputsAt(1)], node)
        elif name == "hardswish":
            made = self._append("aten::hardswish", [first], node)
        else:
            return None
        return self._append("aten::relu", [made], node) if relu else made

    def _layer(self, node: Any, name: str, value: Any) -> Any:
        number = self._rewriting.number_read(node.inputsAt(1))
        packed = None if number is None else self._rewriting.store.packed[number]
        if not isinstance(packed, PackedConvolution | PackedLinear):
            raise TypeError(f"{node.kind()} reads no packed weight")
        operands = [value, self._weight(packed.weight), self._constant(packed.bias, node)]
        if isinstance(packed, PackedConvolution):
            given = ([*packed.stride], [*packed.padding], [*packed.dilation], packed.groups)
            operands += [self._constant(item, node) for item in given]
        return self._append(f"aten::{name}", operands, node)

    def _weight(self, coded: CodedWeight) -> Any:
        """A weight, rounded once at the front of the graph for all of its readers."""
        if id(coded) not in self._rounded:
            itself = next(iter(self._rewriting.graph.inputs()))
            holder = self._read(itself, self._place, self._kind)
            held = self._read(holder, self._fields[id(coded)], torch._C.TensorType.get())
            zeros = torch.zeros(len(coded.scale), dtype=torch.int32)
            given = (coded.scale, zeros, 0, -LARGEST - 1, LARGEST)
            operands = [self._constant(item, self._front) for item in given]
            self._rounded[id(coded)] = self._append(
                "aten::fake_quantize_per_channel_affine",
                [held, *operands],
                self._front,
            )
        return self._rounded[id(coded)]

    def _read(self, owner: Any, name: str, kind: Any) -> Any:
        node = self._rewriting.append("prim::GetAttr", [owner], self._front)
        node.s_("name", name)
        node.output().setType(kind)
        return node.output()

    def _give(self, node: Any, value: Any, grid: Grid) -> None:
        """Let a value, rounded, stand for what a node gave."""
        rounded = self._round(value, grid, node)
        node.output().replaceAllUsesWith(rounded)
        node.destroy()

    def _round(self, value: Any, grid: Grid, before: Any) -> Any:
        operands = [value, *(self._constant(item, before) for item in (*grid, 0, 255))]
        made = self._append("aten::fake_quantize_per_tensor_affine", operands, before)
        self._grids[made.unique()] = grid
        return made

    def _plain(self, node: Any, position: int) -> Any:
        return node.inputsAt(position).toIValue()

    def _constant(self, value: Any, before: Any) -> Any:
        return self._rewriting.constant(value, before)

    def _append(self, kind: str, operands: list[Any], before: Any) -> Any:
        made = self._rewriting.append(kind, operands, before).output()
        made.setType(torch._C.TensorType.get())
        return made
