r"""A program that computes in half precision.

Weights, buffers and baked constants become float16 or bfloat16. What an operator computes in then
follows from the types of its operands, as everywhere in torch: elementwise operators take the wider
type, most others demand one type for all. So the program is run once on the example, operator by
operator, beside the program as it was, and each operator gets the first of these that works:

1. *own*: the operands as they come. Where the program itself asks for float32 (`x.float()` in a
   norm, positions made of integers) it stays in float32 up to the next operator that demands one
   type for all.
2. *half*: floating-point operands cast to the half type.
3. *wide*: all of them cast to float32. This is for operators without a kernel for the half type on
   this device, and for those whose result is finite in float32 and is not in half precision.

The casts found are put into the graph. BatchNorm keeps its four tensors in float32, which torch's
kernels take beside a half input; so does a weight that only wide operators read or that the program
casts to float32 itself, and a buffer that holds a number beyond the half type. The interface stays:
inputs are taken as they come, and floating-point outputs are cast back.

How far the result may be from the original: each of n operators rounds its operands and its result
by a relative error of at most :math:`u`, which makes :math:`2u = \epsilon` together; independent
errors add up as their squares, so a drift beyond :math:`\epsilon \sqrt{n}` means that something
amplifies them (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 2.8), and
the result is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.certify import relative_error
from engine.errors import EngineError, UnsupportedOperator
from engine.quantisation.half import (
    HALVES,
    HalfKind,
    OutOfHalfRange,
    beyond_half,
    refuse_beyond,
    wide_weights,
)
from engine.quantisation.half_trial import HalfTrial, WideOperator, trial_of
from engine.scan.layers import forward_of
from engine.scan.measuring import Judge
from engine.structure import map_tensors, tensors_in
from engine.torchscript.batch_norms import BATCH_NORMS, attribute_paths
from engine.torchscript.casts import cast_inputs, cast_operands, cast_outputs, forget_types
from engine.torchscript.edit import GraphEditor
from engine.torchscript.instructions import walk
from engine.torchscript.program import Program, memory_of

_PASSES = 4
_ONE_TYPE = {
    "aten::conv1d": 3, "aten::conv2d": 3, "aten::conv3d": 3, "aten::_convolution": 3,
    "aten::conv_transpose1d": 3, "aten::conv_transpose2d": 3, "aten::conv_transpose3d": 3,
    "aten::linear": 3, "aten::matmul": 2, "aten::mm": 2, "aten::bmm": 2, "aten::addmm": 3,
    "aten::baddbmm": 3, "aten::scaled_dot_product_attention": 3,
}  # fmt: skip
"""Operators that demand one type, with how many leading operands are floats: for branches that the
example does not take."""


class HalfDrifts(EngineError):
    """The program in half precision is too far from the program as it was."""

    type = "half-drifts"


@dataclass(frozen=True)
class HalfCompute:
    """A program in half precision.

    Attributes:
        program: has not run yet.
        operators: that ran on floats, once each.
        wide: those of them that stayed in float32, and why.
        kept: names of the tensors that stayed in float32.
        untaken: operators that the example did not reach; casts were put in front of those alone
            that always demand one type.
        methods: that forward calls and that can be called from outside too: they read the same
            weights, which are half now, and were not converted.
        drift: of the outputs on the example, relative.
        tolerance: that it was held against.
    """

    program: Program
    operators: int
    wide: list[WideOperator] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    untaken: int = 0
    methods: list[str] = field(default_factory=list)
    drift: float = 0.0
    tolerance: float = 0.0


@torch.no_grad()
def in_half(
    program: Program,
    inputs: Sequence[Any],
    kind: HalfKind,
    *,
    exclude: Collection[str] = (),
    interface: Literal["float32", "half"] = "float32",
) -> HalfCompute:
    """A copy that computes in half precision.

    Args:
        program: stays as it is.
        inputs: example arguments of forward, of the program as it is.
        kind: the half type.
        exclude: names of parameters that stay in float32, and with them the operators that read
            them.
        interface: type of floating-point outputs. `float32` is the one the program gives now;
            with `half` inputs are cast at the entry, so that they may be half as well.

    Raises:
        OutOfHalfRange: a parameter, or a result on the example, is beyond the half type.
        WeightsNotNumbers: a parameter is NaN or infinite.
        HalfDrifts: the result is further from the original than rounding explains.
        UnsupportedOperator: an operator runs in neither type, or the program has other exported
            methods, or there is nothing to lower.
    """
    methods = _helpers(program, inputs)
    dtype = HALVES[kind]
    kept = _kept_from_the_start(program, dtype) | set(exclude)
    names = _lowered(program, kept)
    refuse_beyond(((name, t) for name, t in program.parameters().items() if name in names), kind)
    with plain_execution():
        expected = call(program.shadow().module, inputs)
    given = inputs
    if interface == "half":
        given = [map_tensors(value, lambda one: _as(one, dtype)) for value in inputs]
    wide: dict[int, WideOperator] = {}
    for _ in range(_PASSES):
        trial = trial_of(program, inputs, given, dtype, lowered=_lowered(program, kept))
        # A weight that stays in float32 gives its operator no reason to fail the next time.
        wide = trial.wide | wide
        more = trial.kept() - kept
        if not more:
            break
        kept |= more
    names = _lowered(program, kept)
    if not names:
        raise UnsupportedOperator(
            "there is nothing that half precision would change in this model",
            where="forward",
            hint="its weights are excluded, of 16 bits already, or read by operators that run in "
            "float32 alone",
        )
    fresh = _edited(
        *(program, trial, names),
        inputs=inputs,
        expected=expected,
        dtype=dtype,
        interface=interface,
    )
    result = HalfCompute(
        fresh.read_back(),
        operators=trial.operators,
        wide=[wide[index] for index in sorted(wide)],
        kept=sorted(kept & wide_weights(program.tensors()).keys()),
        untaken=trial.untaken,
        methods=methods,
    )
    return _verified(program, result, inputs, given=given, expected=expected, kind=kind)


def _helpers(program: Program, inputs: Sequence[Any]) -> list[str]:
    """Exported methods that forward calls: by now a part of it, and left as they are.

    Raises:
        UnsupportedOperator: the program exports methods of another kind.
    """
    called = {} if program.calls is None else program.calls.arguments(inputs)
    others = [name for name in program.other_methods() if name not in called]
    if others:
        raise UnsupportedOperator(
            f"the model exports {', '.join(f'`{name}`' for name in others)} besides forward, "
            "and only forward is converted to half precision",
            where=others[0],
            hint="use `compute: float32`, which stores half-precision weights for all methods",
        )
    return sorted(called)


def _kept_from_the_start(program: Program, dtype: torch.dtype) -> set[str]:
    """Tensors of BatchNorm, and buffers and constants beyond the half type."""
    paths = attribute_paths(program.block)
    read = {
        paths[value]
        for instruction in walk(program.block)
        if instruction.kind in BATCH_NORMS
        for value in instruction.inputs
        if value in paths
    }
    others = set(program.buffers()) | set(program.constants())
    return read | {
        name
        for name, tensor in wide_weights(program.tensors()).items()
        if name in others and beyond_half(tensor, dtype)
    }


def _lowered(program: Program, kept: Collection[str]) -> set[str]:
    """Names of the tensors that become half; tied names stay together, and scalars as they are."""
    tensors = wide_weights(program.tensors())
    stay = {memory_of(tensor) for name, tensor in tensors.items() if name in kept}
    return {
        name for name, tensor in tensors.items() if tensor.dim() and memory_of(tensor) not in stay
    }


def _edited(
    program: Program,
    trial: HalfTrial,
    names: Collection[str],
    *,
    inputs: Sequence[Any],
    expected: Any,
    dtype: torch.dtype,
    interface: str,
) -> Program:
    fresh = program.copy(share=True)
    editor = GraphEditor(fresh)
    made: dict[Any, Tensor] = {}
    for name, tensor in fresh.attributes().items():
        if name in names:
            key = memory_of(tensor)
            if key not in made:
                made[key] = tensor.to(dtype)
            fresh.set_tensor(name, made[key])
    for instruction in walk(program.block):
        constant = instruction.constant
        if isinstance(constant, Tensor) and f"constant:{instruction.index}" in names:
            editor.replace_constant(instruction, constant.to(dtype))
        elif instruction.index in trial.casts:
            for position, target in trial.casts[instruction.index].items():
                cast_operands(fresh, instruction, [position], target)
        elif instruction.index not in trial.ran and instruction.kind in _ONE_TYPE:
            cast_operands(fresh, instruction, range(_ONE_TYPE[instruction.kind]), dtype)
    if interface == "half":
        cast_inputs(fresh, inputs, dtype)
    forget_types(fresh)
    given = {tensor.dtype for tensor in tensors_in(expected) if tensor.is_floating_point()}
    back = dtype if interface == "half" else max(given, key=_width, default=torch.float32)
    cast_outputs(fresh, expected, back)
    fresh.edited()
    return Program(fresh._c, fresh.device, fresh.calls)


def _verified(
    program: Program,
    result: HalfCompute,
    inputs: Sequence[Any],
    *,
    given: Sequence[Any],
    expected: Any,
    kind: HalfKind,
) -> HalfCompute:
    """The same with its drift.

    Raises:
        OutOfHalfRange, HalfDrifts: see `in_half`.
    """
    converted = forward_of(result.program)
    found = map_tensors(converted(given), lambda one: one.double() if _floats(one) else one)
    reference = map_tensors(expected, lambda one: one.double() if _floats(one) else one)
    if math.isinf(relative_error(reference, found)) and _finite(reference) and not _finite(found):
        raise OutOfHalfRange(
            f"the outputs on the example are not finite in {kind}",
            hint="use `scheme: bf16`, which has the range of float32"
            if kind == "fp16"
            else "use `compute: float32`, which changes no operator",
            where="forward",
        )
    judge = Judge(forward_of(program), tuple(inputs), quantity="drift", device=program.device)
    drift = judge.measure(lambda _inputs: converted(given)).drift
    tolerance = torch.finfo(HALVES[kind]).eps * math.sqrt(max(result.operators, 1))
    if drift is None or not drift <= tolerance:
        shown = "not finite" if drift is None else f"{drift:.2g}"
        raise HalfDrifts(
            f"computed in {kind} the outputs drift by {shown} on the example; rounding explains "
            f"{tolerance:.2g}",
            hint="use `compute: float32`, which stores half-precision weights and computes as "
            "before" + ("" if kind == "fp16" else ", or `scheme: fp16`, which rounds finer"),
            where="forward",
        )
    return replace(result, drift=drift, tolerance=tolerance)


def _as(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _floats(value: Tensor) -> bool:
    return value.is_floating_point()


def _finite(values: Any) -> bool:
    return all(bool(one.isfinite().all()) for one in tensors_in(values) if one.is_floating_point())


def _width(dtype: torch.dtype) -> int:
    return dtype.itemsize
