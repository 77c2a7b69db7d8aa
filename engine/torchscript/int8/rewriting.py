"""Replacing the operators of one graph by those that read packed weights."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from engine.quantisation.int8.weights import CodedWeight, code_channels
from engine.torchscript.instructions import operator_of
from engine.torchscript.int8.holder import Holder, field_of, kind_of
from engine.torchscript.int8.operands import Operand, Operands, nodes_in
from engine.torchscript.int8.packed import Packed, StoredWeight
from engine.torchscript.int8.rehousing import rehoused
from engine.torchscript.program import Program, memory_of

CONVOLUTIONS = frozenset(
    f"aten::{name}"
    for name in (
        "conv1d", "conv2d", "conv3d", "_convolution", "convolution", "conv_transpose1d",
        "conv_transpose2d", "conv_transpose3d",
    )
)  # fmt: skip


SHAPE_ONLY = frozenset({"aten::size", "aten::dim", "aten::numel", "aten::len"})
"""They ask a tensor for its shape and read no value."""


class Refused(Exception):
    """Why an operator stays in floating point."""


class WeightStore:
    """Packed weights, each once however often it is read."""

    def __init__(self) -> None:
        self.packed: list[Packed] = []
        self.fields: list[dict[str, Any]] = []
        self._known: dict[Any, int] = {}
        self._codes: dict[tuple[Any, ...], CodedWeight] = {}
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []

    def code(self, weight: Operand) -> CodedWeight:
        """The integers of a weight, the same ones for all that read the same memory."""
        key = memory_of(weight.tensor)
        if key not in self._codes:
            self._codes[key] = code_channels(weight.tensor, weight.name)
            self._alive.append(weight.tensor)
            self._names[id(self._codes[key])] = weight.name
        return self._codes[key]

    def name(self, coded: CodedWeight) -> str:
        """The first name of a weight whose integers `code` gave."""
        return self._names[id(coded)]

    def stored(self, weight: Operand) -> int:
        """The number of a weight that computes in floating point and is stored as integers."""
        return self.place(("stored",), [weight.tensor], lambda: StoredWeight(self.code(weight)))

    def coded(self, tensor: Tensor) -> bool:
        """Whether a tensor's integers are stored."""
        return memory_of(tensor) in self._codes

    def place(self, key: tuple[Any, ...], tensors: list[Tensor], make: Callable[[], Packed]) -> int:
        """The number of a packed weight.

        Args:
            key: what besides the tensors tells it from others.
            tensors: it is made of; they are kept, so that their memory stays theirs.
            make: gives it.
        """
        whole = (*key, *(memory_of(tensor) for tensor in tensors))
        if whole not in self._known:
            self._known[whole] = len(self.packed)
            made = make()
            self.packed.append(made)
            self.fields.append(made.fields(field_of(self._known[whole])))
            self._alive += tensors
        return self._known[whole]

    def kind(self, number: int) -> Any:
        """The type of a packed weight."""
        return kind_of(self.fields[number][field_of(number)])


class Rewriting:
    """One graph of a program whose operators are being replaced.

    The nodes that read packed weights are put in their places by `finish`, once all weights are
    known and the module that holds them has a type.
    """

    def __init__(
        self, program: Program, graph: Any, store: WeightStore, excluded: Collection[str]
    ) -> None:
        self.graph = graph
        self.excluded = excluded
        self._whole = {
            tensor.untyped_storage().data_ptr()
            for name, tensor in program.attributes().items()
            if (name.rpartition(".")[0] or name) in excluded
        }
        self.store = store
        self.operands = Operands(program, graph)
        self._reads: dict[int, int] = {}

    def weight(self, value: Any, dims: int | None = None) -> Operand:
        """The weight that an operand is.

        Raises:
            Refused: it depends on the input, or is not float32.
        """
        found = self.operands.tensor(value)
        if found is None:
            raise Refused("its weight is computed while it runs")
        if found.tensor.dtype != torch.float32:
            kind = str(found.tensor.dtype).removeprefix("torch.")
            raise Refused(f"its weight is {kind}, and int8 operators of torch take float32 around")
        if dims is not None and found.tensor.dim() != dims:
            raise Refused(f"its weight has {found.tensor.dim()} dimensions")
        if not found.tensor.numel():
            raise Refused("its weight is empty")
        if found.tensor.untyped_storage().data_ptr() in self._whole:
            raise Refused("it shares its weight with a layer that the recipe excludes")
        return found

    def read(self, number: int, before: Any) -> Any:
        """A value that will be a packed weight, read before a node."""
        node = self.graph.create("prim::GetAttr", [next(iter(self.graph.inputs()))], 1)
        node.s_("name", field_of(number))
        node.output().setType(self.store.kind(number))
        node.insertBefore(before)
        self._reads[node.output().unique()] = number
        return node.output()

    def number_read(self, value: Any) -> int | None:
        """The number of the packed weight that a value is, or None."""
        return self._reads.get(value.unique())

    def finish(self, place: str, holder: Holder) -> None:
        """Let the reads go through the module that holds the weights."""
        itself = next(iter(self.graph.inputs()))
        for node in list(nodes_in(self.graph)):
            if node.kind() == "prim::GetAttr" and node.output().unique() in self._reads:
                owner = self.append("prim::GetAttr", [itself], node)
                owner.s_("name", place)
                owner.output().setType(holder.module._type())
                node.replaceInput(0, owner.output())

    def listed(self, values: list[Any], before: Any) -> Any:
        """A list of packed weights."""
        node = self.append("prim::ListConstruct", values, before)
        node.output().setType(torch._C.ListType(values[0].type()))
        return node.output()

    def store_rest(self) -> None:
        """Let what still reads a stored weight as it was read its decoded integers.

        So a weight is in the file once, and the same for all of its readers.
        """
        for node in list(nodes_in(self.graph)):
            if node.kind() != "prim::GetAttr" or node.output().unique() in self._reads:
                continue
            found = self.operands.weights.get(self.operands.path(node.output()) or "")
            if found is not None and self.store.coded(found.tensor):
                read = self.read(self.store.stored(found), node)
                read.setType(node.output().type())
                node.output().replaceAllUsesWith(read)

    def append(self, kind: str, inputs: list[Any], before: Any, outputs: int = 1) -> Any:
        """A new node in front of another one."""
        node = self.graph.create(kind, inputs, outputs)
        node.insertBefore(before)
        return node

    def constant(self, value: Any, before: Any) -> Any:
        """A constant in front of a node."""
        self.graph.setInsertPoint(before)
        return self.graph.insertConstant(value)


def finished(program: Program, rewritings: list[Rewriting], store: WeightStore) -> Program:
    """The program that reads packed weights and holds nothing besides what it reads."""
    for rewriting in rewritings:
        torch._C._jit_pass_dce(rewriting.graph)
        rewriting.store_rest()
    holder = Holder(store.packed, store.fields)
    place = "int8"
    while program._c.hasattr(place):
        place += "_"
    program._c._register_attribute(place, holder.module._type(), holder.module)
    for rewriting in rewritings:
        rewriting.finish(place, holder)
        torch._C._jit_pass_dce(rewriting.graph)
    return rehoused(program, kept=[place])


def argument(node: Any, name: str) -> Any:
    """An operand by the name the operator's schema gives it."""
    return node.inputsAt(operator_of(node.schema()).arguments.index(name))


def replace(node: Any, made: Any) -> None:
    """Give the readers of a node's outputs those of another one, and delete it."""
    for old, new in zip(node.outputs(), made.outputs(), strict=True):
        new.setType(old.type())
        old.replaceAllUsesWith(new)
    node.destroy()


def readers(value: Any) -> list[Any]:
    """Nodes that read what a value holds, and not its shape alone."""
    return [use.user for use in value.uses() if use.user.kind() not in SHAPE_ONLY]


def called(node: Any) -> str:
    """An operator's name in reports."""
    name = str(node.kind()).partition("::")[2].lstrip("_")
    return "linear" if name in {"addmm", "mm", "matmul"} else name


def layer_of(rewriting: Rewriting, node: Any, position: int) -> str:
    """The layer whose weight an operand is, or where the node stands in the source."""
    found = rewriting.operands.tensor(node.inputsAt(position))
    if found is not None:
        return found.layer
    return str(node.sourceRange()).strip().partition("\n")[0].strip().rstrip(":") or node.kind()
