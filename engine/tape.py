"""One run of a program on an example: the list of operators that ran, with shapes.

Recording first runs on the meta device, where an operator costs no arithmetic and no memory. Where
the program's control flow or an operator needs real values, it is recorded again with real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch.utils.weak import WeakIdKeyDictionary

from engine.errors import EngineError
from engine.structure import leaves, map_tensors
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, run_operator
from engine.torchscript.meta import run_on_meta
from engine.torchscript.program import Program, memory_of

Recorded = TypeVar("Recorded")
_KEPT_ELEMENTS = 1 << 20


@dataclass(eq=False)
class TensorValue:
    """A tensor of the run.

    Attributes:
        number: unique in the tape.
        shape, dtype: as it ran.
        name: canonical name when it is a parameter, buffer or baked constant.
        value: kept for scalars and for index-like tensors, when real values were available.
    """

    number: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    name: str | None = None
    value: torch.Tensor | None = None


@dataclass(eq=False)
class Step:
    """One operator that ran. Tensors in `arguments` and `outputs` are `TensorValue`s."""

    instruction: Instruction
    arguments: list[Any]
    outputs: list[Any]

    @property
    def kind(self) -> str:
        """Operator name without overload and without the in-place underscore."""
        kind = self.instruction.kind
        return kind[:-1] if kind.endswith("_") and not kind.endswith("__") else kind

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument by its schema name."""
        operator = self.instruction.operator
        if operator is None or name not in operator.arguments:
            return default
        return self.arguments[operator.arguments.index(name)]

    def position(self, name: str) -> int:
        """Operand position of a schema argument."""
        operator = self.instruction.operator
        assert operator is not None  # noqa: S101  only operators are recorded
        return operator.arguments.index(name)

    def tensors(self) -> list[TensorValue]:
        """Tensor arguments, lists flattened, in order."""
        return list(self._tensors)

    @cached_property
    def _tensors(self) -> tuple[TensorValue, ...]:
        return tuple(flatten(self.arguments))

    def layer(self) -> str:
        """The layer whose weights this step reads, or where the step stands in the source."""
        return self._layer

    @cached_property
    def _layer(self) -> str:
        for value in self._tensors:
            if value.name is not None and not value.name.startswith("constant:"):
                return value.name.rpartition(".")[0] or value.name
        return self.instruction.location


@dataclass
class Tape:
    """The whole run.

    Attributes:
        steps: operators in order.
        tensors: parameters, buffers and constants that were read, by canonical name.
        aliases: every name of each canonical tensor (tied weights have several).
        inputs, outputs: the tensors forward took and gave, flattened.
        exported: for outputs of a joint program that methods besides forward gave, which did.
        branches: decisions of `prim::If` and trip counts of `prim::Loop`, in order.
        meta: recorded without real values.
    """

    steps: list[Step] = field(default_factory=list)
    tensors: dict[str, TensorValue] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    inputs: list[TensorValue] = field(default_factory=list)
    outputs: list[TensorValue] = field(default_factory=list)
    exported: dict[int, str] = field(default_factory=dict)
    branches: list[tuple[int, int]] = field(default_factory=list)
    meta: bool = True

    @cached_property
    def read(self) -> frozenset[int]:
        """Numbers of the tensors that a step or the caller reads."""
        read = {value.number for step in self.steps for value in step.tensors()}
        return frozenset(read | {value.number for value in self.outputs})


def record(program: Program, inputs: Sequence[Any]) -> Tape:
    """Run the program on example inputs and record every operator on tensors.

    Raises:
        ModelRaised: the model refuses these inputs.
        UnsupportedOperator: an instruction cannot be run.
    """
    return shapes_first(lambda meta: _record(program, inputs, meta=meta))


def shapes_first(run: Callable[[bool], Recorded]) -> Recorded:
    """What `run(True)`, on the meta device, gives, or where that needs values `run(False)`.

    A program that fails for its own reasons fails in the second run as well, which says why.
    """
    try:
        return run(True)
    except (EngineError, NotImplementedError, RuntimeError):
        return run(False)


@torch.no_grad()
def _record(program: Program, inputs: Sequence[Any], *, meta: bool) -> Tape:
    recorder = _Recorder(Tape(meta=meta), canonical_names(program), meta=meta)
    placed = [map_tensors(value, recorder.place) for value in inputs]
    recorder.tape.inputs = list(
        flatten([map_tensors(value, recorder.value_of) for value in placed])
    )
    outputs = Interpreter(program, recorder).run(placed)
    tape = recorder.tape
    given = map_tensors(outputs, recorder.value_of)
    tape.outputs = list(flatten([given]))
    for method, own in zip(program.methods, given, strict=True) if len(program.methods) > 1 else ():
        if method != "forward":
            tape.exported.update((value.number, method) for value in flatten([own]))
    return tape


def canonical_names(program: Program) -> dict[str, str]:
    """For each name of a parameter or buffer, the first name of the same memory."""
    seen: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    for name, tensor in program.attributes().items():
        key = memory_of(tensor)
        shared = key in seen
        names[name] = seen[key] if shared else name
        if not shared:
            seen[key] = name
    return names


def to_meta(tensor: torch.Tensor) -> torch.Tensor:
    """The same shape, strides and dtype without values."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta", requires_grad=False
    )


class _Recorder:
    def __init__(self, tape: Tape, canonical: dict[str, str], *, meta: bool) -> None:
        self.tape = tape
        self._canonical = canonical
        self._meta = meta
        self._run = run_on_meta if meta else run_operator
        # Without values they may be kept, and found faster; real ones must go when they can.
        self._placed: dict[int, tuple[torch.Tensor, TensorValue]] = {}
        self._values: Any = WeakIdKeyDictionary()
        self._named: dict[str, torch.Tensor] = {}
        self._aliases: dict[str, list[str]] = {}
        for name, first in canonical.items():
            self._aliases.setdefault(first, []).append(name)
        self._count = 0

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        # A copy: the program may change its inputs in place.
        return to_meta(tensor) if self._meta else tensor.clone()

    def value_of(self, tensor: torch.Tensor) -> TensorValue:
        placed = self._placed.get(id(tensor))
        if placed is not None:
            return placed[1]
        known: TensorValue | None = self._values.get(tensor)
        if known is not None:
            return known
        self._count += 1
        kept = tensor.device.type != "meta" and (
            tensor.dim() == 0
            or (not tensor.is_floating_point() and tensor.numel() < _KEPT_ELEMENTS)
        )
        made = TensorValue(
            number=self._count,
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            value=tensor.detach().clone() if kept else None,
        )
        if tensor.device.type == "meta":
            self._placed[id(tensor)] = tensor, made
        else:
            self._values[tensor] = made
        return made

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        canonical = self._canonical.get(name, name)
        if canonical not in self._named:
            # Names that forward does not read are the same weight too.
            self.tape.aliases[canonical] = self._aliases.get(canonical, [canonical])
            # Scalars stay real: control flow and shape arithmetic read them.
            # Copies: the program may write to its own tensors, and must not while analysed.
            placed = to_meta(tensor) if self._meta and tensor.dim() else tensor.detach().clone()
            self._named[canonical] = placed
            value = self.value_of(placed)
            value.name = canonical
            if value.value is None and not tensor.is_floating_point():
                value.value = tensor
            self.tape.tensors[canonical] = value
        return self._named[canonical]

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        seen = [
            argument
            if argument is None or isinstance(argument, int | float)
            else map_tensors(argument, self.value_of)
            for argument in arguments
        ]
        outputs = self._run(instruction, arguments)
        listed = list(outputs) if len(instruction.outputs) > 1 else [outputs]
        self.tape.steps.append(
            Step(instruction, seen, [map_tensors(output, self.value_of) for output in listed])
        )
        return outputs

    def branch(self, instruction: Instruction, condition: bool) -> bool:
        self.tape.branches.append((instruction.index, int(condition)))
        return condition

    def iterations(self, instruction: Instruction, count: int) -> int:
        self.tape.branches.append((instruction.index, count))
        return count


def flatten(values: Any) -> Iterator[TensorValue]:
    """The tensor values in nested data, in order."""
    return leaves(values, TensorValue)
