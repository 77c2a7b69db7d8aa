"""Which operators run in half precision: found by running each of them.

See `engine.quantisation.half_compute` for the three ways an operator may run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from engine.calling import copies
from engine.errors import UnsupportedOperator
from engine.quantisation.half import OutOfHalfRange
from engine.structure import map_tensors, tensors_in
from engine.torchscript.batch_norms import BATCH_NORMS
from engine.torchscript.effects import written
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.interpreter import Interpreter, PlainVisitor, run_operator
from engine.torchscript.program import Program, memory_of

_TAKE_ANY = frozenset(
    f"aten::{name}"
    for name in (
        "cat", "concat", "concatenate", "stack", "hstack", "vstack", "where", "to", "type_as",
        "copy_", "expand_as", "view_as", "reshape_as",
    )
) | set(BATCH_NORMS)  # fmt: skip
"""Operators besides the elementwise ones that take operands of several types."""

_CASTS = frozenset({"aten::to", "aten::_to_copy", "aten::type_as"})


class Mode(IntEnum):
    """How an operator runs."""

    OWN = 0
    HALF = 1
    WIDE = 2


@dataclass(frozen=True)
class WideOperator:
    """An operator that stayed in float32.

    Attributes:
        kind: such as `aten::cdist`.
        where: the layer whose weights it reads, or its line in the source.
        reason: why not in half precision.
    """

    kind: str
    where: str
    reason: str


def trial_of(
    program: Program,
    inputs: Sequence[Any],
    given: Sequence[Any],
    dtype: torch.dtype,
    *,
    lowered: Collection[str],
) -> HalfTrial:
    """Run a program in half precision, operator by operator.

    Args:
        program: as it is.
        inputs: example arguments, for the program as it is.
        given: the same for the program in half precision.
        dtype: the half type.
        lowered: names of the tensors that are half.

    Raises:
        OutOfHalfRange: a result is beyond the half type and cannot be made in float32.
        EngineError: the program does not run.
    """
    reference = _Reference()
    Interpreter(program.shadow(), reference).run(copies(inputs))
    trial = HalfTrial(program, dtype, lowered, reference.seen)
    Interpreter(program.shadow(), trial).run(copies(given))
    return trial


class _Reference(PlainVisitor):
    """For each run of each operator, which outputs are finite and which are no NaN."""

    def __init__(self) -> None:
        self.seen: dict[int, list[list[tuple[bool, bool]]]] = {}

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        outputs = run_operator(instruction, arguments)
        self.seen.setdefault(instruction.index, []).append(list(_numbers(outputs)))
        return outputs


class HalfTrial(PlainVisitor):
    """A visitor that finds a way to run for each operator.

    Attributes:
        casts: by index of an instruction and position of an operand: the type to cast it to.
        ran: how often each operator on tensors ran, by index of the instruction.
        wide: operators that stayed in float32, by index.
    """

    def __init__(
        self,
        program: Program,
        dtype: torch.dtype,
        lowered: Collection[str],
        reference: dict[int, list[list[tuple[bool, bool]]]],
    ) -> None:
        self.casts: dict[int, dict[int, torch.dtype]] = {}
        self.ran: dict[int, int] = {}
        self._program = program
        self._dtype = dtype
        self._lowered = lowered
        self._reference = reference
        self._modes: dict[int, Mode] = {}
        self._floating: set[int] = set()
        self.wide: dict[int, WideOperator] = {}
        self._made: dict[Any, Tensor] = {}
        self._owners: dict[int, str] = {}
        self._readers: dict[str, set[bool]] = {}
        doubles = any(t.dtype == torch.float64 for t in program.parameters().values())
        self._widest = torch.float64 if doubles else torch.float32

    @property
    def operators(self) -> int:
        """How many ran on floats."""
        return len(self._floating)

    @property
    def untaken(self) -> int:
        """Operators on tensors that did not run."""
        return sum(
            bool(one.operator is not None and one.tensor_outputs and one.index not in self.ran)
            for one in walk(self._program.block)
            if one.kind.startswith("aten::")
        )

    def kept(self) -> set[str]:
        """Lowered tensors that are read in float32 alone, so that they may as well stay so."""
        return {name for name, wide in self._readers.items() if wide == {True}}

    def tensor(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor in its new type, one for all names of the same memory."""
        key = memory_of(tensor)
        if key not in self._made:
            lowered = name in self._lowered
            made = tensor.detach().to(self._dtype) if lowered else tensor.detach().clone()
            self._made[key] = made
            self._owners[_storage(made)] = name
        return self._made[key]

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """The operator in the first way that works."""
        count = self.ran.get(instruction.index, 0)
        self.ran[instruction.index] = count + 1
        runs = self._reference.get(instruction.index, [])
        wanted = runs[count] if count < len(runs) else None
        outputs, mode, reason = self._run(instruction, arguments, wanted)
        if any(one.is_floating_point() for one in tensors_in([arguments, outputs])):
            self._floating.add(instruction.index)
        self._modes[instruction.index] = mode
        if reason and mode == Mode.WIDE:
            self.wide.setdefault(
                instruction.index,
                WideOperator(instruction.kind, self._where(instruction, arguments), reason),
            )
        self._note(instruction, arguments, outputs, mode)
        return outputs

    def _run(
        self,
        instruction: Instruction,
        arguments: list[Any],
        wanted: list[tuple[bool, bool]] | None,
    ) -> tuple[Any, Mode, str]:
        changed = written(instruction)
        first = self._modes.get(instruction.index)
        if first is None:
            first = self._first(instruction, arguments)
        reason, failed, before = "", None, None
        for mode in list(Mode)[first:]:
            cast = self._cast(instruction, arguments, mode, changed)
            if cast == before:
                continue  # the operands are of that type already
            before = cast
            try:
                outputs = run_operator(instruction, _with_casts(arguments, cast))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                failed, reason = error, _said(error, self._dtype)
                continue
            if wanted is None or not _worse(outputs, wanted):
                if cast:
                    self.casts[instruction.index] = cast
                return outputs, mode, reason
            failed, reason = None, f"its result is beyond {_name(self._dtype)}"
            if changed:
                break
        where = self._where(instruction, arguments)
        if failed is not None:
            raise UnsupportedOperator(
                f"{instruction.kind} runs neither in {_name(self._dtype)} nor in float32 where "
                f"its operands are half: {reason}",
                where=where,
                hint="use `compute: float32`, which changes no operator",
            ) from failed
        raise OutOfHalfRange(
            f"the result of {instruction.kind} is not finite in {_name(self._dtype)}",
            hint="use `scheme: bf16`, which has the range of float32, or `compute: float32`"
            if self._dtype == torch.float16
            else "use `compute: float32`, which changes no operator",
            where=where,
        )

    def _first(self, instruction: Instruction, arguments: list[Any]) -> Mode:
        """What to try first: operands of one type, where the operator demands that."""
        operator = instruction.operator
        assert operator is not None  # noqa: S101  only operators are run
        if operator.pointwise or instruction.kind in _TAKE_ANY or written(instruction):
            return Mode.OWN
        floats = [one for one in tensors_in(arguments) if one.is_floating_point() and one.dim()]
        if len({one.dtype for one in floats}) < 2:
            return Mode.OWN
        owned = [one for one in floats if _storage(one) in self._owners]
        return Mode.WIDE if any(one.dtype != self._dtype for one in owned) else Mode.HALF

    def _cast(
        self,
        instruction: Instruction,
        arguments: list[Any],
        mode: Mode,
        changed: Collection[int],
    ) -> dict[int, torch.dtype]:
        """Positions to cast and to what; what is written in place must stay what it is."""
        if mode == Mode.OWN:
            return {}
        target = self._dtype if mode == Mode.HALF else self._widest
        own = [one for at in changed for one in tensors_in(arguments[at])]
        if own and own[0].is_floating_point():
            target = own[0].dtype
        found = {
            at
            for at, value in enumerate(arguments)
            if at not in changed
            and any(one.is_floating_point() and one.dtype != target for one in tensors_in([value]))
        }
        # In a loop the operand that was cast in one round may come in the right type in the next.
        return dict.fromkeys(sorted(found | set(self.casts.get(instruction.index, {}))), target)

    def _note(
        self, instruction: Instruction, arguments: list[Any], outputs: Any, mode: Mode
    ) -> None:
        """Remember who reads the weights; views of a weight are the weight."""
        made = {_storage(one) for one in tensors_in([outputs])}
        results = [one for one in tensors_in([outputs]) if one.is_floating_point()]
        widened = instruction.kind in _CASTS and all(one.dtype == self._widest for one in results)
        for one in tensors_in(arguments):
            name = self._owners.get(_storage(one))
            if name is not None and name in self._lowered and _storage(one) not in made:
                self._readers.setdefault(name, set()).add(mode == Mode.WIDE or widened)

    def _where(self, instruction: Instruction, arguments: list[Any]) -> str:
        names = (self._owners.get(_storage(one), "") for one in tensors_in(arguments))
        weights = (name for name in names if name and not name.startswith("constant:"))
        return next((name.rpartition(".")[0] or name for name in weights), instruction.location)


def _numbers(outputs: Any) -> Iterator[tuple[bool, bool]]:
    """For each floating-point tensor: whether all of it is finite, and whether none is NaN."""
    for one in tensors_in([outputs] if isinstance(outputs, Tensor) else list(_listed(outputs))):
        if one.is_floating_point():
            yield bool(one.isfinite().all()), not bool(one.isnan().any())


def _listed(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, list | tuple):
        yield from outputs


def _worse(outputs: Any, wanted: list[tuple[bool, bool]]) -> bool:
    return any(
        (before and not now) or (sound and not still)
        for (before, sound), (now, still) in zip(wanted, _numbers(outputs), strict=False)
    )


def _with_casts(arguments: list[Any], cast: dict[int, torch.dtype]) -> list[Any]:
    def to(value: Any, dtype: torch.dtype) -> Any:
        return map_tensors(value, lambda one: one.to(dtype) if one.is_floating_point() else one)

    return [to(value, cast[at]) if at in cast else value for at, value in enumerate(arguments)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _said(error: Exception, dtype: torch.dtype) -> str:
    lines = str(error).strip().splitlines()
    return f"it does not run in {_name(dtype)}: {lines[0] if lines else type(error).__name__}"
