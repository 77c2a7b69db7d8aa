"""Run an uploaded program and say whose fault it is when it fails.

Three things can go wrong when `forward` is called, and a user must act differently on each:

1. the program's own `raise` or `assert` fired: TorchScript reports it as `torch.jit.Error`;
2. the arguments do not fit (count, type, shape, dtype): a plain `RuntimeError`, from the call
   itself or from the operator that met the wrong shape;
3. the operator has no implementation for this device or dtype: `NotImplementedError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from engine.errors import (
    EngineError,
    InputsDoNotFit,
    ModelRaised,
    UnsupportedOperator,
)
from engine.out_of_memory import is_out_of_memory, out_of_memory
from engine.structure import map_tensors

_HERE = re.compile(r"^(?P<code>.*)\n\s*~+\s*<--- HERE", re.MULTILINE)
_MESSAGE = re.compile(r"^(?:RuntimeError|builtins\.\w+|[\w.]*Error): (.*)$", re.MULTILINE)
_NO_KERNEL = re.compile(r"not implemented for|Could not run '|dtypes not supported", re.IGNORECASE)
_NO_ORDER = "does not have a deterministic implementation"


@contextmanager
def plain_execution() -> Iterator[None]:
    """Run programs node by node, without the TorchScript optimiser.

    The optimiser profiles a graph's first calls and runs a rewritten one later, with other
    rounding; without it a fresh process computes the same bits as a warm one.
    """
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield


def copies(inputs: Sequence[Any]) -> list[Any]:
    """The same arguments in memory of their own."""
    return [map_tensors(value, Tensor.clone) for value in inputs]


def describe(inputs: Sequence[Any]) -> str:
    """Shapes and dtypes of arguments, for messages."""
    return ", ".join(_described(value) for value in inputs)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, list):
        return f"[{describe(value)}]"
    if isinstance(value, tuple):
        return f"({describe(value)}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_described(item)}" for key, item in value.items()) + "}"
    return repr(value)


def call(module: Callable[..., Any], inputs: Sequence[Any], *, where: str = "recipe.inputs") -> Any:
    """`module(*inputs)`, with its failures as errors that name the fault.

    The program gets copies, for it may change its arguments in place.

    Args:
        module: a loaded ScriptModule.
        inputs: positional arguments.
        where: the recipe field or dataset tensor the arguments come from.

    Raises:
        ModelRaised: the program's own code raised.
        InputsDoNotFit: the arguments have the wrong count, type, shape or dtype.
        UnsupportedOperator: an operator cannot run on this device or dtype.
        OutOfMemory: the device ran out of memory.
    """
    try:
        return module(*copies(inputs))
    except torch.jit.Error as error:
        raise ModelRaised(
            f"the model raised: {_last_line(error)}",
            hint=f"it was called with ({describe(inputs)}); send inputs that the model accepts",
            where=_code_line(error) or where,
        ) from error
    except (RuntimeError, IndexError, ValueError, TypeError, MemoryError) as error:
        raise failure_of(error, inputs, where) from error


def failure_of(error: Exception, inputs: Sequence[Any], where: str) -> EngineError:
    """The engine error that says what a failed operator call means."""
    reason = _last_line(error)
    if is_out_of_memory(error):
        return out_of_memory(error, doing="running the model", where=where)
    if isinstance(error, NotImplementedError) or _NO_KERNEL.search(reason):
        return UnsupportedOperator(
            f"an operator of the model cannot run here: {reason}",
            hint="use another device or dtype, or export the model without this operator",
            where=_code_line(error) or where,
        )
    if _NO_ORDER in reason:
        return UnsupportedOperator(
            f"an operator of the model has no deterministic kernel: {reason}",
            hint="leave `deterministic` out of the recipe, or run on a CPU",
            where=_code_line(error) or where,
        )
    line = _code_line(error)
    return InputsDoNotFit(
        f"the model does not accept these inputs: {reason}",
        hint=f"it was called with ({describe(inputs)})"
        + (f"; the call failed at `{line}`" if line else "")
        + "; correct the shapes and dtypes",
        where=where,
    )


def output_tensor(output: Any) -> Tensor:
    """The tensor that losses and accuracy are computed from.

    A tensor is taken as it is, of a mapping its `logits` (or its only tensor), of a tuple or list
    the first tensor.

    Raises:
        ModelRaised: the output holds no such tensor.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        if isinstance(output.get("logits"), Tensor):
            return output["logits"]  # type: ignore[no-any-return]
        tensors = [value for value in output.values() if isinstance(value, Tensor)]
        if len(tensors) == 1:
            return tensors[0]
        found = ", ".join(f"`{key}`" for key in output) or "nothing"
        raise ModelRaised(
            f"the model returns a mapping with {found}, and no tensor `logits`",
            hint="return the logits as a tensor, as the first of a tuple, or under key `logits`",
            where="forward",
        )
    if isinstance(output, tuple | list):
        for value in output:
            if isinstance(value, Tensor):
                return value
    raise ModelRaised(
        f"the model returns {type(output).__name__} without a tensor",
        hint="return the logits as a tensor, as the first of a tuple, or under key `logits`",
        where="forward",
    )


def _last_line(error: Exception) -> str:
    """The model's or operator's own message: what stands after the TorchScript traceback."""
    text = str(error).strip()
    if "Traceback of TorchScript" not in text:
        return text.splitlines()[0] if text else type(error).__name__
    messages = _MESSAGE.findall(text)
    return str(messages[-1]) if messages else text.splitlines()[-1]


def _code_line(error: Exception) -> str:
    """The innermost line of the uploaded code that the interpreter marks, or nothing."""
    serialized = str(error).partition("Traceback of TorchScript, original code")[0]
    marked = _HERE.findall(serialized)
    return marked[-1].strip() if marked else ""
