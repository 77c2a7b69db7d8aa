"""A TorchScript file that holds values and computes nothing, in the types that a program takes.

C++ reads it with LibTorch alone, and a list of tensors comes out as a list of tensors: what the
formats of Python for data know of a value is less than what a call of TorchScript asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.torchscript.program import Program


def save_calls(
    path: Path,
    program: Program,
    calls: Sequence[tuple[Sequence[Any], Any]],
    numbers: Mapping[str, float],
) -> None:
    """Write calls of forward and what they give.

    Attributes of the module: `calls` and `arguments` count, `input_I_C` is argument I of call C and
    `expected_C` its result; and `numbers` by their names.

    Args:
        path: of the file.
        program: whose forward says the types.
        calls: positional arguments, as many in each, and the result.
        numbers: stored beside them.
    """
    schema = program.schema()
    types = [argument.type for argument in schema.arguments[1:]]
    # A type of its own: scripted modules of one class share theirs.
    made: Any = torch._C.ScriptModule
    module = made("Calls", torch._C.CompilationUnit(), False)

    def register(name: str, kind: Any, value: Any) -> None:
        module._register_attribute(name, kind, value)

    register("calls", torch._C.IntType.get(), len(calls))
    register("arguments", torch._C.IntType.get(), len(calls[0][0]))
    for name, number in numbers.items():
        register(name, torch._C.FloatType.get(), float(number))
    for index, (inputs, result) in enumerate(calls):
        for at, (kind, value) in enumerate(zip(types, inputs, strict=False)):
            register(f"input_{at}_{index}", kind, value)
        register(f"expected_{index}", schema.returns[0].type, result)
    module.save(str(path))
