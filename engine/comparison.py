"""What makes two runs of programs comparable, and what it means when one of them fails.

A certificate runs two programs several times and compares what they give. So every run is in
float64, starts from the same state (a program may count its calls in a buffer) and draws the same
random numbers (dropout that is always on).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from secateur.report import Certificate

from engine.calling import call, plain_execution
from engine.errors import CertificateFailed, EngineError, UnsupportedOperator
from engine.structure import pairs
from engine.torchscript.dependence import written_attributes
from engine.torchscript.instructions import walk
from engine.torchscript.precision import made_in_float64
from engine.torchscript.program import Program

FAULTS = (RuntimeError, torch.jit.Error, IndexError, ValueError, TypeError)
"""What a program that fails raises; errors of its own are no RuntimeError."""

GIVES_NAN = "the model gives NaN on the example"


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


def failure(claim: str, certificate: Certificate) -> CertificateFailed:
    """The error of a certificate that did not pass.

    Args:
        claim: what was to be proved, denied.
    """
    if certificate.detail.startswith("the certificate proves nothing"):
        return CertificateFailed(
            certificate.detail,
            hint="no model was produced; give an example on which the model gives fractions, or "
            "upload one that returns scores instead of classes",
            where="certificate",
        )
    error = certificate.restricted_error
    error = certificate.max_relative_error if error is None else error
    if math.isfinite(error) and math.isfinite(certificate.max_relative_error):
        return CertificateFailed(
            f"{claim}: relative error {error:.2g}",
            hint=f"no model was produced; {certificate.detail}",
            where="certificate",
        )
    if GIVES_NAN in certificate.detail:
        return CertificateFailed(
            f"the certificate proves nothing: {certificate.detail}",
            hint="no model was produced; mend what gives NaN, or give an example on which the "
            "model gives numbers",
            where="certificate",
        )
    return CertificateFailed(
        f"{claim}: {certificate.detail}",
        hint="no model was produced; exclude layers to find which is at fault",
        where="certificate",
    )


def unlike(expected: Any, found: Any) -> str:
    """The first part in which two outputs cannot be compared by numbers; empty where they can."""
    for one, other in pairs(expected, found):
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            said = _unlike_tensors(one, other)
        elif isinstance(one, float) and isinstance(other, float):
            said = _unlike_tensors(torch.tensor(one), torch.tensor(other))
        else:
            same = type(one) is type(other) and not isinstance(one, torch.Tensor) and one == other
            said = "" if same else f"an output is {_shown(other)} and should be {_shown(one)}"
        if said:
            return said
    return ""


def _unlike_tensors(expected: torch.Tensor, found: torch.Tensor) -> str:
    if expected.shape != found.shape:
        return f"an output has shape {tuple(found.shape)} and should have {tuple(expected.shape)}"
    if not (expected.is_floating_point() or expected.is_complex()):
        return "" if torch.equal(expected, found) else "an output of integers differs"
    apart = torch.isfinite(expected) != torch.isfinite(found)
    if bool(((expected.isnan() | found.isnan()) & apart).any()):
        return "outputs hold NaN where they should hold numbers, or numbers for NaN"
    if bool(apart.any()):
        return "outputs hold infinity at other places"
    return ""


def _shown(value: Any) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else repr(value)[:40]


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
