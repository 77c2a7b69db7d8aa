r"""What an ONNX file of a result in int8 is made of, and how near it has to be.

ONNX writes int8 arithmetic as QuantizeLinear and DequantizeLinear around operators in floating
point (QDQ). A runtime either computes just that, or recognises the pattern and computes with
integers. Neither is what torch's int8 operators do to the last bit: sums of products are float32 or
integers of another order, biases are rounded to other integers, and requantisation multiplies by a
scale in another precision. All of it is far below a step of any tensor, but a value near the middle
of two steps falls to the other side, and what is computed of it moves by a part of a step, which
may push others over.

So results are compared in steps of the output. Where the output is rounded itself, its step is the
calibrated scale s; one value on the other side of a middle is off by s exactly. Where it is in
floating point, because its layer is excluded or a softmax follows, the step is what calibration
would have made of it, :math:`(\max y - \min y) / 127` with zero in the range. The file may be off
by two steps anywhere: one for the rounding of the output, one for all that was pushed over before.
Where a step of an inner tensor moves the outputs by more than that, as before a layer that spreads
a narrow tensor wide, rounding itself moves them far: then the file may be off by what the result
is off from the program in floating point on the same samples, up to four steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engine.exports.request import ExportFailed, ExportRequest
from engine.exports.tensors import TensorCase, largest_error, tensor_model
from engine.quantisation.int8.lowerings import DynamicInt8, StaticInt8
from engine.quantisation.int8.ranges import STEPS
from engine.structure import tensors_in
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.rounded import RoundedProgram, rounded_program

STEPS_OFF = 2
"""How many steps of the output a file in int8 may be off."""

MOST_STEPS_OFF = 4
"""How many where rounding itself moves the outputs that far."""


def rounded_of(request: ExportRequest) -> RoundedProgram | None:
    """The program that rounds where the delivered file does; None where that is not in int8.

    Raises:
        ExportFailed: the result quantises inputs as it runs.
        UnsupportedOperator: some of its layers do.
    """
    scheme = "" if request.lowering is None else request.lowering["scheme"]
    if scheme == DynamicInt8.scheme:
        raise ExportFailed(
            "`dynamic_int8` quantises inputs to 7 bits as it runs, which ONNX has no operator for",
            hint="take `static_int8` for an ONNX file in int8, or the TorchScript file",
        )
    if request.lowering is None or scheme != StaticInt8.scheme:
        return None
    lowering = StaticInt8.from_plain(request.lowering)
    return rounded_program(prepared(request.program), lowering.ranges.get, lowering.excluded)


def int8_tolerance(cases: Sequence[TensorCase], output_step: float, rounding: float) -> float:
    """How far the file may be off, relative to the largest output; the strictest of all outputs.

    Args:
        cases: what is compared.
        output_step: the calibrated step of an output; 0 where none is rounded.
        rounding: how far the program in floating point is off, relative likewise.
    """
    whole = [
        [case.expected[at].detach().double() for case in cases]
        for at, first in enumerate(cases[0].expected)
        if first.is_floating_point()
    ]
    steps = [
        max(output_step, _spread(tensors) / STEPS) / largest
        for tensors in whole
        if (largest := max((float(one.abs().max()) for one in tensors if one.numel()), default=0.0))
    ]
    step = min(steps, default=0.0)
    return min(max(STEPS_OFF * step, rounding), MOST_STEPS_OFF * step)


def rounding_error(request: ExportRequest) -> float:
    """How far the program in floating point is from the result, relative to the largest output."""
    model = tensor_model(request)
    found = [tensors_in([model.program.module(*case.inputs)]) for case in model.cases]
    return largest_error(model.cases, found)


def _spread(tensors: Sequence[Tensor]) -> float:
    low = min(0.0, *(float(one.min()) for one in tensors if one.numel()))
    high = max(0.0, *(float(one.max()) for one in tensors if one.numel()))
    return high - low
