"""Residual branches: the sums x + f(x) of a run, and what only f needs.

A sum of two activations is residual when one operand, x, is an ancestor of the other, f: then x is
a shortcut past f, and with f gone the sum is x. Both must have the sum's type, and x its shape; f
may be smaller and broadcast. A shortcut that computes something (the projection where a ResNet
changes its width) is no ancestor of the other side, so such sums are none. A shortcut through
views of the same number of elements counts as what it views.

A branch's own weights are those that no path from the inputs to the outputs reads any more when
the sum is replaced by x. Without any (the polynomial of a GELU, a shared block) there is nothing to
gain, and the sum is no candidate. A branch may hold others *inside*, which go with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.report import Frozen

from engine.coupling.exclusion import match_layers
from engine.layers.consequences import Consequences, consequences
from engine.layers.flow import Content, Flow, FlowStep, record_flow
from engine.layers.naming import branch_names, common_path
from engine.layers.reading import looped
from engine.measure.size import weights_of
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.program import Program

SUMS = frozenset({"aten::add", "aten::add_"})


@dataclass(frozen=True)
class Branch:
    """A residual branch that can be removed.

    Attributes:
        name: the longest layer path that its own weights have in common; unique.
        number: which of the program's sums it ends in (see `sums`); the same for every copy.
        kept: position of x among the sum's operands.
        weights: names of its own weights.
        inside: numbers of the sums whose branches go with it.
        convolves: a convolution is part of it.
    """

    name: str
    number: int
    kept: int
    weights: tuple[str, ...]
    inside: frozenset[int] = frozenset()
    convolves: bool = False


@dataclass(frozen=True)
class Branches:
    """All branches of a program in the order of the run, and residual sums that must stay."""

    removable: list[Branch]
    frozen: list[Frozen]


def sums(program: Program) -> list[Instruction]:
    """The instructions of a program that add two tensors, in order."""
    return [
        instruction
        for instruction in walk(program.block)
        if instruction.kind in SUMS
        and instruction.operator is not None
        and instruction.operator.overload == "Tensor"
    ]


def find_branches(program: Program, inputs: Sequence[Any], exclude: Sequence[str] = ()) -> Branches:
    """The residual branches on the path that an example takes.

    Args:
        inputs: positional arguments of forward.
        exclude: glob patterns over layer names; a branch that reads a matching layer stays.

    Raises:
        PatternMatchesNothing: a pattern matches no layer.
        ModelRaised: the model refuses these inputs.
    """
    return _Finder(program, inputs, exclude).found()


def shortcut(flow: Flow, step: FlowStep) -> int | None:
    """Position of x among the operands of a sum; None where the sum is not residual."""
    left, right, alpha = step.operands
    if not (isinstance(left, Content) and isinstance(right, Content)):
        return None
    # Only the second operand is scaled, and x must come through as it is.
    for position, x, f in ((0, left, right), (1, right, left)):
        if (
            _same_type(x, step.gives[0])
            and x.dtype == f.dtype
            and (position == 0 or alpha == 1)
            and flow.fed[x.node]
            and flow.comes_from(f.node, _source(flow, x))
        ):
            return position
    return None


def _same_type(x: Content, total: Content) -> bool:
    return total.dtype.is_floating_point and (x.shape, x.dtype) == (total.shape, total.dtype)


def _source(flow: Flow, x: Content) -> int:
    node = x.node
    while node in flow.views:
        node = flow.views[node]
    return node


@dataclass(frozen=True)
class _Residual:
    """A residual sum of the run: its number, position of x, weights on the way from x to f, and
    what removing it means."""

    number: int
    step: FlowStep
    kept: int
    read: set[str]
    without: Consequences


class _Finder:
    def __init__(self, program: Program, inputs: Sequence[Any], exclude: Sequence[str]) -> None:
        self._program = program
        self._excluded = match_layers(program.layer_names(), exclude)
        self._flow = record_flow(program, inputs)
        self._needed = self._flow.needed()
        self._weights = set(weights_of(program))
        self._in_loops = looped(program.block)

    def found(self) -> Branches:
        """Every residual sum with weights in its branch is removable or frozen."""
        removable: list[_Residual] = []
        frozen: list[Frozen] = []
        for residual in self._residuals():
            reason = self._reason(residual)
            if reason is None:
                removable.append(residual)
            else:
                read = self._weights.intersection(residual.without.own) or residual.read
                layer = common_path(sorted(read)) or "forward"
                frozen.append(Frozen(layer=layer, op="add", reason=reason, channels=1))
        names = branch_names([self._matrices(residual.without.own) for residual in removable])
        return Branches(
            [
                self._branch(name, residual, removable)
                for name, residual in zip(names, removable, strict=True)
            ],
            frozen,
        )

    def _residuals(self) -> Iterator[_Residual]:
        flow = self._flow
        steps = {step.instruction.index: step for step in flow.steps}
        for number, instruction in enumerate(sums(self._program)):
            step = steps.get(instruction.index)
            if step is None or step.gives[0].node not in self._needed:
                continue
            kept = shortcut(flow, step)
            if kept is None:
                continue
            x, f = step.operands[kept].node, step.operands[1 - kept].node
            between = flow.ancestors([f]) - flow.ancestors([x])
            # What runs before x may read the same weights, so their nodes may not lie between.
            sources = (parent for node in between for parent in flow.parents[node])
            read = flow.named([*between, *sources]) & self._weights
            if read:
                without = consequences(self._program, flow, step, kept)
                yield _Residual(number, step, kept, read, without)

    def _reason(self, residual: _Residual) -> str | None:
        """Why a branch must stay, or None."""
        own = residual.without.own
        for name in sorted(residual.read.union(own)):
            layer = name.rpartition(".")[0]
            if layer in self._excluded:
                return f"excluded by the pattern `{self._excluded[layer]}`"
        if residual.step.instruction.index in self._in_loops:
            return "its sum stands in a loop"
        if not self._weights.intersection(own):
            return "all weights that it reads are needed elsewhere too"
        return residual.without.obstacle

    def _branch(self, name: str, residual: _Residual, others: Sequence[_Residual]) -> Branch:
        gone = self._needed - residual.without.left
        return Branch(
            name=name,
            number=residual.number,
            kept=residual.kept,
            weights=tuple(residual.without.own),
            inside=frozenset(other.number for other in others if other.step.gives[0].node in gone),
            convolves=any(
                "conv" in step.instruction.kind and step.gives[0].node in gone
                for step in self._flow.steps
                if step.gives
            ),
        )

    def _matrices(self, own: Sequence[str]) -> list[str]:
        """What a branch is named for: its matrices and filters, not its normalisation."""
        tensors = self._program.tensors()
        weights = [name for name in own if name in self._weights]
        return [name for name in weights if tensors[name].dim() > 1] or weights
