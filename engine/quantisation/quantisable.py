"""Which weights of a program can be stored in fewer bits, and why the others cannot.

A weight is followed from where it is read, through views, lists, branches and loops, to the
operators that take it. It can be stored in fewer bits where one of them is a matrix product, a
convolution, an embedding or a recurrent layer, in any exported method, and nothing writes to it.
What is added or multiplied elementwise (positions, scales, gates) keeps its bits: there every
rounding goes into the result as it is, where a product averages many. Parameters of fewer than two
dimensions, biases and scales of normalisation, are few and are not looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor

from engine.coupling.exclusion import match_layers
from engine.torchscript.attributes import joined
from engine.torchscript.effects import written
from engine.torchscript.instructions import Block, Instruction
from engine.torchscript.program import Program, memory_of

_READERS = frozenset(
    f"aten::{name}"
    for name in (
        "linear", "bilinear", "matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "einsum",
        "conv1d", "conv2d", "conv3d", "_convolution", "convolution", "_convolution_mode",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "embedding", "embedding_bag",
        "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell",
        "rnn_relu_cell",
    )
)  # fmt: skip

_SUMMANDS = {"aten::addmm": 0, "aten::baddbmm": 0}
"""Operands of readers that are added and not multiplied."""

_PASSING = frozenset(
    f"aten::{name}"
    for name in (
        "t", "transpose", "permute", "view", "reshape", "flatten", "unflatten", "squeeze",
        "unsqueeze", "chunk", "split", "split_with_sizes", "unbind", "slice", "select", "narrow",
        "to", "contiguous", "detach", "expand", "__getitem__", "numpy_T", "movedim", "swapaxes",
    )
) | {
    "prim::ListUnpack", "prim::ListConstruct", "prim::TupleUnpack", "prim::TupleConstruct",
    "prim::unchecked_cast", "aten::_unwrap_optional",
}  # fmt: skip
"""What may lie between a weight and its reader; what these give is still the weight's memory."""


Held = defaultdict[int, frozenset[str]]
"""The weights that a value holds, or is."""


def quantisable(
    program: Program, exclude: Sequence[str] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights that can be stored in fewer bits, and for the other ones why not.

    Args:
        program: as `Program.load` gives it.
        exclude: patterns of layers, matched as element pruning does: a shared weight is excluded
            with either of its layers.

    Returns:
        Parameters of two or more dimensions by name, shared ones once; and reasons by the name of
        those that keep their bits.

    Raises:
        PatternMatchesNothing: a pattern matches no layer.
    """
    excluded = match_layers(program.layer_names(), exclude)
    parameters = {name: own for name, own in program.parameters().items() if own.dim() > 1}
    called = {memory_of(own): name for name, own in parameters.items()}
    by_path = {
        path: called[memory_of(own)]
        for path, own in program.attributes().items()
        if memory_of(own) in called
    }
    patterns = {
        name: excluded[path.rpartition(".")[0]]
        for path, name in by_path.items()
        if path.rpartition(".")[0] in excluded
    }
    uses = _Uses(by_path)
    for block in (program.block, *map(program.method_block, program.other_methods())):
        uses.follow(block)
    weights, reasons = {}, {}
    for name, own in parameters.items():
        reason = f"excluded by `{patterns[name]}`" if name in patterns else uses.against(name)
        if not own.numel():
            reason = reason or "it has no elements"
        if reason:
            reasons[name] = reason
        else:
            weights[name] = own
    return weights, reasons


class _Uses:
    """What some methods do with weights.

    Args:
        names: of the weights by path.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._read: set[str] = set()
        self._written: set[str] = set()
        self._others: dict[str, set[str]] = defaultdict(set)

    def against(self, name: str) -> str:
        """Why a weight cannot be stored in fewer bits; empty where it can."""
        if name in self._written:
            return "the program writes to it"
        if name in self._read:
            return ""
        others = sorted(self._others[name])
        does = f" (it is read by {', '.join(others[:3])})" if others else ""
        return (
            "no matrix product, convolution, embedding or recurrent layer reads it where the "
            f"analysis can follow{does}"
        )

    def follow(self, block: Block) -> None:
        """Follow the weights through one method."""
        paths = {block.inputs[0]: ""}
        self._block(block, paths, defaultdict(frozenset))

    def _block(self, block: Block, paths: dict[int, str], held: Held) -> None:
        for instruction in block.instructions:
            if instruction.kind == "prim::GetAttr":
                self._attribute(instruction, paths, held)
            elif instruction.kind == "prim::SetAttr":
                owner = paths.get(instruction.inputs[0])
                if owner is not None:
                    name = self._names.get(joined(owner, str(instruction.name)))
                    self._written.update({name} if name else ())
            elif instruction.blocks:
                self._inner(instruction, paths, held)
            else:
                self._operator(instruction, held)

    def _attribute(self, instruction: Instruction, paths: dict[int, str], held: Held) -> None:
        owner = paths.get(instruction.inputs[0])
        if owner is None:
            return
        path = paths[instruction.outputs[0]] = joined(owner, str(instruction.name))
        if path in self._names:
            held[instruction.outputs[0]] = frozenset({self._names[path]})

    def _inner(self, instruction: Instruction, paths: dict[int, str], held: Held) -> None:
        loop = instruction.kind == "prim::Loop"
        # A loop hands what it makes to its next round, so a second look sees the rest.
        for _ in range(2 if loop else 1):
            for block in instruction.blocks:
                if loop:
                    carried = zip(block.inputs[1:], instruction.inputs[2:], strict=True)
                    for inner, outer in carried:
                        held[inner] = held[inner] | held[outer]
                self._block(block, paths, held)
                given = block.outputs[1:] if loop else block.outputs
                for output, value in zip(instruction.outputs, given, strict=True):
                    held[output] = held[output] | held[value]
                if loop:
                    for inner, value in zip(block.inputs[1:], given, strict=True):
                        held[inner] = held[inner] | held[value]

    def _operator(self, instruction: Instruction, held: Held) -> None:
        for position in written(instruction):
            self._written |= held[instruction.inputs[position]]
        if instruction.kind in _PASSING:
            through = frozenset().union(*(held[value] for value in instruction.inputs))
            for output in instruction.outputs:
                held[output] = held[output] | through
            return
        for position, value in enumerate(instruction.inputs):
            if instruction.kind in _READERS and _SUMMANDS.get(instruction.kind) != position:
                self._read |= held[value]
            for name in held[value]:
                self._others[name].add(instruction.kind)
