"""A TorchScript graph as plain instructions.

`compile_graph` walks an inlined `torch._C.Graph` once. Later passes read instructions and never
ask torch about nodes again; `index` names an instruction and is the same for every load of the
same bytes, so what one pass learns another can apply to a fresh copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch

from engine.errors import UnsupportedOperator

_NUMBERS = frozenset({"int", "float", "number", "List[int]", "Optional[int]"})
_CONTROL = frozenset({"prim::If", "prim::Loop"})
_PLAIN = frozenset({"prim::GetAttr", "prim::Constant", "prim::ListConstruct"})
_WITHOUT_SCHEMA = _PLAIN | _CONTROL


@dataclass(frozen=True)
class Operator:
    """One overload of one operator.

    Attributes:
        name: qualified name without overload, in-place underscore kept, such as `aten::conv2d`.
        arguments: argument names in order.
        first_keyword: position of the first keyword-only argument.
        call: runs it, or None where this build of torch has no such overload.
        pointwise: torch says it acts on each element alone (with broadcasting).
    """

    name: str
    overload: str
    arguments: tuple[str, ...]
    first_keyword: int
    call: Callable[..., Any] | None
    pointwise: bool

    def __call__(self, *values: Any) -> Any:
        """Run on all arguments in schema order."""
        if self.call is None:
            raise UnsupportedOperator(
                f"operator {self.name} (overload `{self.overload}`) cannot be run here",
                where=self.name,
                hint="this build of torch does not offer it; export the model without it",
            )
        keywords = dict(
            zip(
                self.arguments[self.first_keyword :],
                values[self.first_keyword :],
                strict=True,
            )
        )
        return self.call(*values[: self.first_keyword], **keywords)


@dataclass(eq=False)
class Block:
    """A straight run of instructions; `release[i]` are the values dead after instruction i."""

    inputs: tuple[int, ...]
    instructions: list[Instruction] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    release: list[tuple[int, ...]] = field(default_factory=list)

    @cached_property
    def fixed(self) -> frozenset[int]:
        """Values that are constants, or lists of constants, here and in all inner blocks."""
        found: set[int] = set()
        for instruction in walk(self):
            if instruction.kind == "prim::Constant" or (
                instruction.kind == "prim::ListConstruct" and found.issuperset(instruction.inputs)
            ):
                found.update(instruction.outputs)
        return frozenset(found)


@dataclass(eq=False)
class Instruction:
    """One node.

    Attributes:
        index: position in the depth-first walk of the graph.
        kind: such as `aten::relu` or `prim::If`.
        inputs, outputs: value numbers.
        operator: for nodes with a schema.
        name: of the attribute (`prim::GetAttr`, `prim::SetAttr`).
        constant: value of a `prim::Constant`.
        node: the graph node, to be asked and never edited: copies of a program share their
            instructions, and `Program.place` has the nodes of each.
        graph: its graph, which must live as long as the node.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operator: Operator | None
    name: str | None
    constant: Any
    node: Any
    graph: Any
    blocks: tuple[Block, ...] = ()

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Inputs that are numbers or lists of numbers; kept, for asking torch is slow."""
        kinds = (value.type().annotation_str for value in self.node.inputs())
        return tuple(
            operand for operand, kind in zip(self.inputs, kinds, strict=True) if kind in _NUMBERS
        )

    @cached_property
    def tensor_inputs(self) -> tuple[int, ...]:
        """Inputs that are tensors, or hold some."""
        return _holding_tensors(self.inputs, self.node.inputs())

    @cached_property
    def tensor_outputs(self) -> tuple[int, ...]:
        """Outputs that are tensors, or hold some."""
        return _holding_tensors(self.outputs, self.node.outputs())

    @cached_property
    def location(self) -> str:
        """Source file and line as recorded in the upload; read when asked, for it is slow."""
        return _location(self.node.sourceRange())


def _holding_tensors(numbers: tuple[int, ...], values: Any) -> tuple[int, ...]:
    kinds = (value.type().annotation_str for value in values)
    return tuple(number for number, kind in zip(numbers, kinds, strict=True) if "Tensor" in kind)


@lru_cache(maxsize=4096)
def operator_of(schema: str) -> Operator:
    """The operator a schema string names."""
    parsed = torch._C.parse_schema(schema)
    names = tuple(argument.name for argument in parsed.arguments)
    first_keyword = next(
        (i for i, argument in enumerate(parsed.arguments) if argument.kwarg_only), len(names)
    )
    found = torch._C._get_operation_overload(parsed.name, parsed.overload_name)
    call, tags = (found[0], found[2]) if found is not None else (None, [])
    pointwise = torch.Tag.pointwise in tags
    if not pointwise and parsed.name.endswith("_"):
        base = torch._C._get_operation_overload(parsed.name[:-1], parsed.overload_name)
        pointwise = base is not None and torch.Tag.pointwise in base[2]
    return Operator(
        name=parsed.name,
        overload=parsed.overload_name,
        arguments=names,
        first_keyword=first_keyword,
        call=call,
        pointwise=pointwise,
    )


def compile_graph(graph: Any) -> Block:
    """The instructions of an inlined graph; the block's inputs are the graph's, self included."""
    return _compile_block(
        tuple(value.unique() for value in graph.inputs()),
        graph.nodes(),
        tuple(value.unique() for value in graph.outputs()),
        _Source(graph, iter(range(10**9))),
    )


def nodes_of(block: Block, graph: Any) -> list[Any]:
    """The nodes of a graph, or of a clone of it, at the indices of its instructions."""
    found: list[Any] = []
    _gather(block, graph.nodes(), found)
    return found


def _gather(block: Block, nodes: Iterator[Any], found: list[Any]) -> None:
    if not any(instruction.blocks for instruction in block.instructions):
        found.extend(nodes)
        return
    for instruction, node in zip(block.instructions, nodes, strict=True):
        found.append(node)
        if instruction.blocks:
            for own, inner in zip(instruction.blocks, node.blocks(), strict=True):
                _gather(own, inner.nodes(), found)


@dataclass(frozen=True)
class _Source:
    """The graph being read and the numbers its instructions get."""

    graph: Any
    counter: Iterator[int]


def _compile_block(
    inputs: tuple[int, ...], nodes: Iterator[Any], outputs: tuple[int, ...], source: _Source
) -> Block:
    block = Block(inputs=inputs, outputs=outputs)
    last_use: dict[int, int] = {}
    defined: set[int] = set(inputs)
    for position, node in enumerate(nodes):
        instruction = _compile_node(node, source)
        block.instructions.append(instruction)
        for value in _uses(instruction) if instruction.blocks else instruction.inputs:
            last_use[value] = position
        for value in instruction.outputs:
            last_use[value] = position
        defined.update(instruction.outputs)
    kept = set(outputs)
    release: list[list[int]] = [[] for _ in block.instructions]
    for value, position in last_use.items():
        # Values of an enclosing block may be needed again by the next iteration of a loop.
        if value in defined and value not in kept:
            release[position].append(value)
    block.release = [tuple(values) for values in release]
    return block


def _uses(instruction: Instruction) -> Iterator[int]:
    yield from instruction.inputs
    for block in instruction.blocks:
        yield from block.outputs
        for inner in block.instructions:
            yield from _uses(inner)


def _compile_node(node: Any, source: _Source) -> Instruction:
    kind = node.kind()
    index = next(source.counter)
    if kind == "prim::Constant":
        made = node.output()
        return Instruction(
            index, kind, (), (made.unique(),), None, None, made.toIValue(), node, source.graph
        )
    schema = "(no schema)" if kind in _WITHOUT_SCHEMA else node.schema()
    has_schema = schema != "(no schema)"
    name = node.s("name") if kind in {"prim::GetAttr", "prim::SetAttr"} else None
    blocks = tuple(
        _compile_block(
            tuple(value.unique() for value in inner.inputs()),
            inner.nodes(),
            tuple(value.unique() for value in inner.outputs()),
            source,
        )
        for inner in (node.blocks() if _may_hold_blocks(kind) else ())
    )
    return Instruction(
        index=index,
        kind=kind,
        # One by one: each iterator that torch makes costs as much as ten of these calls.
        inputs=tuple([node.inputsAt(at).unique() for at in range(node.inputsSize())]),
        outputs=tuple([node.outputsAt(at).unique() for at in range(node.outputsSize())]),
        operator=operator_of(schema) if has_schema else None,
        name=name,
        constant=None,
        node=node,
        graph=source.graph,
        blocks=blocks,
    )


def _may_hold_blocks(kind: str) -> bool:
    # Asking torch takes longer than all the rest.
    return kind.startswith("prim::") and kind not in _PLAIN


def _location(source_range: str) -> str:
    """First line of a source range: `File "model.py", line 12` or `model.py(12): forward`."""
    lines = source_range.strip().splitlines()
    return lines[0].strip().rstrip(":") if lines else ""


def walk(block: Block) -> Iterator[Instruction]:
    """Every instruction, depth first, in index order."""
    for instruction in block.instructions:
        yield instruction
        for inner in instruction.blocks:
            yield from walk(inner)
