"""A graph lowered to int8, given the range of each place.

Operators are visited in order. Each value may have a quantised twin: `known`. An operator with an
int8 form reads the twins, quantises operands that have none where the form is worth it, and gives
a twin; everything else reads floating point, dequantised from the twin where there is one. What is
dequantised and never read disappears in the end, so chains of int8 operators stay in int8.

Inner blocks (branches, loops) see the twins of what is outside and keep theirs to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.quantisation.int8.ranges import ActivationRange
from engine.quantisation.int8.result import LayerQuantised
from engine.torchscript.int8.dynamic import rewrite
from engine.torchscript.int8.operands import nodes_in
from engine.torchscript.int8.places import operand_place, operator_names
from engine.torchscript.int8.rewriting import SHAPE_ONLY, Refused, Rewriting, WeightStore, readers
from engine.torchscript.program import Program

_QUINT8 = 13
"""torch.quint8, in TorchScript's numbers."""
_OF_ACTIVATIONS = frozenset({"matmul", "bmm", "mm", "baddbmm", "scaled_dot_product_attention"})
_OF_TWO = frozenset({"add", "mul", "cat"})

Look = Callable[[str], ActivationRange | None]
"""The range of a place; None where calibration saw no float32 tensor there."""


@dataclass(frozen=True)
class Twin:
    """The quantised form of a value.

    Attributes:
        value: in the graph.
        place: whose range it has.
        rounded: it was computed in floating point and rounded for an operator with a weight.
    """

    value: Any
    place: str
    rounded: bool = False


@dataclass(frozen=True)
class Site:
    """Where an operator with a weight reads and gives int8.

    Attributes:
        layer: it belongs to.
        given: place of its input.
        result: place of its output.
    """

    layer: str
    given: str
    result: str


class Lowering:
    """The forward graph of a prepared program on its way to int8.

    Args:
        program: is used up.
        look: gives ranges.
        excluded: layers that stay as they are.
        store: of packed weights.

    Attributes:
        layers: what became of each operator that was looked at.
        sites: operators with weights that compute in int8, by name.
    """

    def __init__(
        self, program: Program, look: Look, excluded: Collection[str], store: WeightStore
    ) -> None:
        self.rewriting = Rewriting(program, program.graph, store, excluded)
        self.look = look
        self.layers: list[LayerQuantised] = []
        self.sites: dict[str, Site] = {}
        nodes = list(nodes_in(program.graph))
        names = operator_names(node.kind() for node in nodes)
        self._names = {
            node.outputsAt(0).unique(): name
            for node, name in zip(nodes, names, strict=True)
            if name and node.outputsSize()
        }
        self._fused: set[int] = set()
        self._known: dict[int, Twin] = {}

    def lower(self, rules: Mapping[str, Rule]) -> None:
        """Visit every operator."""
        self._block(self.rewriting.graph, rules)

    def _block(self, block: Any, rules: Mapping[str, Rule]) -> None:
        outside, self._known = self._known, dict(self._known)
        for node in list(block.nodes()):
            if node.outputsSize() and node.outputsAt(0).unique() in self._fused:
                node.destroy()
                continue
            for inner in node.blocks():
                self._block(inner, rules)
            self._visit(node, rules.get(node.kind()))
        self._known = outside

    def _visit(self, node: Any, rule: Rule | None) -> None:
        if node.kind() in SHAPE_ONLY:
            twin = self.known(node.inputsAt(0))
            if twin is not None:
                node.replaceInput(0, twin.value)
            return
        reason = ""
        if rule is not None:
            try:
                if rule(self, node):
                    return
            except Refused as refused:
                reason = str(refused)
        self._stays(node, reason)

    def _stays(self, node: Any, reason: str) -> None:
        """What has no static form may have a dynamic one; note what has neither."""
        told = rewrite(self.rewriting, node)
        if told:
            self.layers += [
                replace(one, reason=one.reason or f"its input is quantised as it runs: {reason}")
                if reason
                else one
                for one in told
            ]
            return
        reads = node.kind().startswith("aten::") and any(
            self.known(value) is not None for value in node.inputs()
        )
        if (reads and node.kind() != "aten::append") or reason:
            op = node.kind().partition("::")[2]
            if op in _OF_ACTIVATIONS:
                reason = reason or "it multiplies activations with activations"
            if op in _OF_TWO:
                reason = reason or "one of its operands is in floating point"
            reason = reason or f"no int8 operator of torch is used for {op}"
            name = self.layer(node) or self.name(node)
            self.layers.append(LayerQuantised(name, op, "float", reason))

    def name(self, node: Any) -> str:
        """The name of an operator."""
        return self._names.get(node.outputsAt(0).unique(), str(node.kind()))

    def layer(self, node: Any) -> str | None:
        """The layer of the first weight that an operator reads, or None."""
        for value in node.inputs():
            found = self.rewriting.operands.tensor(value)
            if found is not None:
                return found.layer
        return None

    def known(self, value: Any) -> Twin | None:
        """The twin of a value, if it has one."""
        return self._known.get(value.unique())

    def range(self, place: str) -> ActivationRange:
        """The range of a place.

        Raises:
            Refused: it has none.
        """
        found = self.look(place)
        if found is None:
            raise Refused("the calibration data gave it no float32 tensor")
        return found

    def twin(self, node: Any, position: int, value: Any = None) -> Twin:
        """The twin of an operand, quantised in front of the operator where there is none yet.

        Raises:
            Refused: the place has no range.
        """
        value = node.inputsAt(position) if value is None else value
        found = self.known(value)
        if found is not None:
            return found
        place = operand_place(self.name(node), position)
        found = Twin(self._quantise(value, self.range(place), node), place, rounded=True)
        self._known[value.unique()] = found
        return found

    def _quantise(self, value: Any, given: ActivationRange, before: Any) -> Any:
        operands = [
            self.rewriting.constant(item, before)
            for item in (given.scale, given.zero_point, _QUINT8)
        ]
        node = self.rewriting.append("aten::quantize_per_tensor", [value, *operands], before)
        return node.output()

    def result(self, node: Any) -> tuple[Any, str, ActivationRange, bool]:
        """What an operator gives: the node whose output counts, its place and range, and whether
        that is a relu which the int8 operator does as well.

        Raises:
            Refused: the place has no range.
        """
        reading = readers(node.output())
        follower = reading[0] if len(reading) == 1 else node
        fused = follower.kind() == "aten::relu" and follower.owningBlock() == node.owningBlock()
        last = follower if fused else node
        place = self.name(last)
        return last, place, self.range(place), fused

    def give(self, node: Any, made: Any, place: str, last: Any = None) -> None:
        """Let a new node stand for an operator, or for it and the relu after it.

        Args:
            node: the operator; it goes.
            made: what gives the twin, in front of it.
            place: of the twin.
            last: the relu, where it is done as well.
        """
        last = node if last is None else last
        floating = self.stand_for(last.output(), Twin(made.output(), place), node)
        if last is not node:
            self._fused.add(last.output().unique())
            last.removeAllInputs()
            node.output().replaceAllUsesWith(floating)  # by what asks for its shape
        node.destroy()

    def stand_for(self, old: Any, twin: Twin, before: Any) -> Any:
        """Let a twin, dequantised in front of a node, stand for a value."""
        floating = self.rewriting.append("aten::dequantize", [twin.value], before)
        floating.output().setType(torch._C.TensorType.get())
        self._known[floating.output().unique()] = twin
        old.replaceAllUsesWith(floating.output())
        return floating.output()

    def number(self, value: float, before: Any) -> Any:
        """A constant in front of a node."""
        return self.rewriting.constant(value, before)


Rule = Callable[[Lowering, Any], bool]
"""Lowers a node and tells so; leaves it alone and gives False where there is nothing to gain; or
raises `Refused` with the reason why it stays."""
