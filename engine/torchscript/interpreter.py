"""Runs a program's instructions one by one, in Python.

Control flow is resolved by running it; every operator on tensors goes through a visitor, which
may record it, replace its arguments, or run it elsewhere (on the meta device, in float64). All
of the engine's analyses are visitors over this one interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from engine.errors import EngineError, InputsDoNotFit, ModelRaised, UnsupportedOperator
from engine.torchscript.arguments import Argument, arguments_of
from engine.torchscript.containers import CONTAINERS, LIST_OPERATORS
from engine.torchscript.instructions import Block, Instruction
from engine.torchscript.program import ModuleReference, Program

_LONGEST_LOOP = 20_000
"""Rounds of one loop that are followed; step by step they would take minutes."""
_AS_OFTEN_AS_IT_TAKES = 2**62
_UNREAD = object()


class Visitor(Protocol):
    """Decides how tensors are read and operators run."""

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The value to use for a parameter, buffer (`layer.weight`) or `constant:<index>`.

        Asked at every read. A visitor that makes a tensor of its own keeps it where the program
        may write to it, or where one weight must be one tensor.
        """

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """Run an operator that takes or gives tensors; returns its output or outputs."""

    def branch(self, instruction: Instruction, condition: bool) -> bool:
        """The decision of a `prim::If`."""

    def iterations(self, instruction: Instruction, count: int) -> int:
        """The trip count a `prim::Loop` asks for."""


class PlainVisitor:
    """Runs everything as it is."""

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  name is for others
        """The tensor itself."""
        return tensor

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """The operator itself."""
        return run_operator(instruction, arguments)

    def branch(self, instruction: Instruction, condition: bool) -> bool:  # noqa: ARG002
        """The condition itself."""
        return condition

    def iterations(self, instruction: Instruction, count: int) -> int:  # noqa: ARG002
        """The count itself."""
        return count


def run_operator(instruction: Instruction, arguments: list[Any]) -> Any:
    """Call the operator of an instruction."""
    assert instruction.operator is not None  # noqa: S101  callers pass operator instructions only
    if instruction.kind in _FROM_LISTS and isinstance(arguments[0], list):
        return _tensor_of(instruction.operator.arguments, arguments)
    return instruction.operator(*arguments)


def _tensor_of(names: tuple[str, ...], arguments: list[Any]) -> torch.Tensor:
    """`torch.tensor([...])`, whose overload for lists takes any nesting and cannot be called."""
    given = dict(zip(names, arguments, strict=True))
    made = torch.tensor(given["data"], device=given.get("device"))
    dtype = given.get("dtype")
    return made if dtype is None else torch.ops.aten.to.dtype(made, dtype)


class Interpreter:
    """Runs `program.forward` through a visitor."""

    def __init__(self, program: Program, visitor: Visitor) -> None:
        self._program = program
        self._visitor = visitor
        self._written: dict[tuple[str, str], Any] = {}
        self._read: dict[str, Any] = {}

    def run(self, inputs: Sequence[Any]) -> Any:
        """Outputs of forward.

        Raises:
            InputsDoNotFit: there are too many inputs, or too few.
            ModelRaised: the program's own code raised.
            UnsupportedOperator: an instruction cannot be run.
        """
        block = self._program.block
        left_out = self._left_out(len(inputs))
        values = [*inputs, *(argument.default for argument in left_out)]
        outputs = self._block(block, {}, [ModuleReference(""), *values])
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _left_out(self, given: int) -> list[Argument]:
        arguments = arguments_of(self._program)
        missing = next((item for item in arguments[given:] if not item.optional), None)
        if missing is not None or given > len(arguments):
            listed = ", ".join(f"`{argument}`" for argument in arguments) or "nothing"
            raise InputsDoNotFit(
                f"{given} inputs are given, and forward takes {len(arguments)}"
                if missing is None
                else f"nothing is given for argument `{missing.name}` of forward",
                hint=f"forward takes {listed}",
                where="inputs",
            )
        return arguments[given:]

    def _block(self, block: Block, env: dict[int, Any], inputs: Sequence[Any]) -> list[Any]:
        env.update(zip(block.inputs, inputs, strict=True))
        for instruction, release in zip(block.instructions, block.release, strict=True):
            arguments = [env[value] for value in instruction.inputs]
            try:
                self._step(instruction, env, arguments)
            except EngineError:
                raise
            except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                raise OperatorFailed(instruction, error) from error
            for value in release:
                env.pop(value, None)
        return [env[value] for value in block.outputs]

    def _step(self, instruction: Instruction, env: dict[int, Any], arguments: list[Any]) -> None:
        kind = instruction.kind
        special = _SPECIAL.get(kind)
        if special is not None:  # most instructions by far, and of one output each
            result = special(self, instruction, arguments)
            if instruction.outputs:
                env[instruction.outputs[0]] = result
            return
        if kind == "prim::If":
            taken = self._visitor.branch(instruction, bool(arguments[0]))
            outputs = self._block(instruction.blocks[0 if taken else 1], env, [])
        elif kind == "prim::Loop":
            outputs = self._loop(instruction, env, arguments)
        elif kind in {"prim::ListUnpack", "prim::TupleUnpack"}:
            outputs = list(arguments[0])
        else:
            result = self._evaluate(instruction, arguments)
            outputs = list(result) if len(instruction.outputs) > 1 else [result]
        for value, output in zip(instruction.outputs, outputs, strict=False):
            env[value] = output

    def _loop(
        self, instruction: Instruction, env: dict[int, Any], arguments: list[Any]
    ) -> list[Any]:
        count, condition, *carried = arguments
        count = self._visitor.iterations(instruction, count)
        body = instruction.blocks[0]
        step = 0
        # `while` asks for as many rounds as an integer can count.
        endless = _LONGEST_LOOP < count < _AS_OFTEN_AS_IT_TAKES
        while step < count and condition:
            if endless or step == _LONGEST_LOOP:
                raise UnsupportedOperator(
                    f"a loop runs for more than {_LONGEST_LOOP:,} rounds",
                    where=instruction.location or "forward",
                    hint="the analysis follows every round; write the loop as an operator on a "
                    "whole tensor, or give an example for which it is shorter",
                )
            condition, *carried = self._block(body, env, [step, *carried])
            step += 1
        return carried

    def _evaluate(self, instruction: Instruction, arguments: list[Any]) -> Any:
        kind = instruction.kind
        if kind in LIST_OPERATORS and isinstance(arguments[0], list | dict | str | tuple):
            return LIST_OPERATORS[kind](*arguments)
        if kind in CONTAINERS:
            return CONTAINERS[kind](*arguments)
        if instruction.operator is None:
            raise UnsupportedOperator(
                f"instruction {kind} cannot be analysed",
                where=instruction.location,
                hint="it has no operator schema (a call that could not be inlined, for example)",
            )
        if holds_tensor(arguments) or instruction.operator.name in _FACTORIES:
            return self._visitor.operator(instruction, arguments)
        return run_operator(instruction, arguments)

    def constant(self, instruction: Instruction, _arguments: list[Any]) -> Any:
        """`prim::Constant`."""
        constant = instruction.constant
        if isinstance(constant, torch.Tensor):
            return self._visitor.tensor(f"constant:{instruction.index}", constant)
        return constant

    def create(self, instruction: Instruction, _arguments: list[Any]) -> Any:
        """`prim::CreateObject`: only the guards of gradients, which the engine does without."""
        kind = instruction.node.output().type().annotation_str
        if not kind.startswith("__torch__.torch.autograd.grad_mode."):
            raise UnsupportedOperator(
                f"the program makes an object of class {kind.removeprefix('__torch__.')}",
                where=instruction.location,
                hint="the analysis follows tensors, lists, tuples and dictionaries; keep what "
                "the class holds in those",
            )
        return SimpleNamespace(path=f"guard {instruction.index}")

    def to_list(self, instruction: Instruction, _arguments: list[Any]) -> Any:
        """`prim::tolist`."""
        raise UnsupportedOperator(
            "the program turns a tensor into a list of numbers (prim::tolist)",
            where=instruction.location or "forward",
            hint="the analysis does not follow numbers in lists; return or use the tensor",
        )

    def set_attribute(self, instruction: Instruction, arguments: list[Any]) -> None:
        """`prim::SetAttr`; the program itself stays as it was."""
        self._written[arguments[0].path, str(instruction.name)] = arguments[1]

    def raise_exception(self, instruction: Instruction, arguments: list[Any]) -> None:
        """`prim::RaiseException`."""
        raise ModelRaised(
            f"the model raised: {arguments[0]}",
            where=instruction.location,
            hint="the model refuses the example inputs; give inputs that its forward accepts",
        )

    def get_attribute(self, instruction: Instruction, arguments: list[Any]) -> Any:
        """`prim::GetAttr`."""
        owner, name = arguments[0], str(instruction.name)
        if not isinstance(owner, ModuleReference):
            return getattr(owner, name)
        if self._written and (owner.path, name) in self._written:
            return self._written[owner.path, name]
        path = f"{owner.path}.{name}" if owner.path else name
        value = self._read.get(path, _UNREAD)
        if value is _UNREAD:
            value = self._read[path] = self._program.attribute(path)
        if isinstance(value, torch.Tensor):
            # Asked each time: what the visitor makes of a weight need not outlive its use.
            return self._visitor.tensor(path, value)
        return list(value) if isinstance(value, list) else value


_SPECIAL: dict[str, Callable[[Interpreter, Instruction, list[Any]], Any]] = {
    "prim::Constant": Interpreter.constant,
    "prim::GetAttr": Interpreter.get_attribute,
    "prim::SetAttr": Interpreter.set_attribute,
    "prim::RaiseException": Interpreter.raise_exception,
    "prim::CreateObject": Interpreter.create,
    "prim::Enter": lambda *_: None,
    "prim::Exit": lambda *_: None,
    "prim::tolist": Interpreter.to_list,
}


class OperatorFailed(ModelRaised):
    """An operator raised while the program was run step by step."""

    def __init__(self, instruction: Instruction, error: Exception) -> None:
        message = str(error).strip().splitlines()
        super().__init__(
            f"{instruction.kind} raised: {message[0] if message else type(error).__name__}",
            where=instruction.location,
            hint="the model fails on the example inputs; check their shapes, dtypes and ranges",
        )
        self.instruction = instruction


_FACTORIES = frozenset(
    f"aten::{name}"
    for name in (
        "zeros", "ones", "empty", "full", "arange", "eye", "linspace", "rand", "randn", "randint",
        "tensor", "as_tensor", "scalar_tensor", "tril_indices", "triu_indices", "randperm",
        "hann_window",
    )
)  # fmt: skip
"""Operators that make tensors out of numbers."""

_FROM_LISTS = frozenset({"aten::tensor", "aten::as_tensor"})


def holds_tensor(values: Any) -> bool:
    """Whether a tensor lies anywhere in nested arguments."""
    if isinstance(values, torch.Tensor):
        return True
    if isinstance(values, list | tuple):
        return any(holds_tensor(value) for value in values)
    if isinstance(values, dict):
        return any(holds_tensor(value) for value in values.values())
    return False
