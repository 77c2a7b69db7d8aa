"""What makes two runs of programs comparable, and what it means when one of them fails.

A certificate runs two programs several times and compares what they give. So every run is in
float64, starts from the same state (a program may count its calls in a buffer) and draws the same
random numbers (dropout that is always on).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from engine.calling import call, plain_execution
from engine.errors import EngineError, UnsupportedOperator
from engine.torchscript.dependence import written_attributes
from engine.torchscript.instructions import walk
from engine.torchscript.precision import made_in_float64
from engine.torchscript.program import Program

FAULTS = (RuntimeError, torch.jit.Error, IndexError, ValueError, TypeError)
"""What a program that fails raises; errors of its own are no RuntimeError."""


@contextmanager
def same_start(program: Program) -> Iterator[None]:
    """Float64, a fixed seed, and the program's own state as it was afterwards."""
    known = program.attributes()
    kept = {}
    for path in written_attributes(program.block):
        owner, _, name = path.rpartition(".")
        value = known[path].clone() if path in known else getattr(program.submodule(owner), name)
        kept[path] = value
    devices = [program.device] if program.device != "cpu" else []
    try:
        with made_in_float64(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            yield
    finally:
        for path, value in kept.items():
            owner, _, name = path.rpartition(".")
            setattr(program.submodule(owner), name, value)


def float64_fault(original: Program, inputs: Sequence[Any], error: Exception) -> EngineError:
    """Why a program fails in float64: it fails in its own precision too, or it knows no float64.

    Raises:
        InputsDoNotFit, ModelRaised: it does not take the example as it is.
    """
    with torch.no_grad(), plain_execution():
        call(original.twin().module, inputs)
    quantized = sorted(
        {
            instruction.kind
            for instruction in walk(original.block)
            if instruction.kind.startswith("quantized::") or "quantize" in instruction.kind
        }
    )
    reason = str(error).strip().splitlines()[-1]
    if quantized:
        return UnsupportedOperator(
            f"the certificate needs the program in float64, where it fails: {reason}",
            where="certificate",
            hint="quantized operators know no float64: upload the model from before quantization, "
            f"and quantize the result (it calls {', '.join(quantized)})",
        )
    return UnsupportedOperator(
        f"the certificate needs the program in float64, where it fails: {reason}",
        where="certificate",
        hint="an operator of the model works in one precision only; export the model without it"
        + _own_operators(original),
    )


def _own_operators(program: Program) -> str:
    known = ("aten::", "prim::")
    kinds = {item.kind for item in walk(program.block) if not item.kind.startswith(known)}
    return f" (it calls {', '.join(sorted(kinds))})" if kinds else ""
