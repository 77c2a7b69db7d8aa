"""Int8 with inputs that are quantised at run time: no data is needed."""

from __future__ import annotations

from collections.abc import Sequence

from engine.coupling.exclusion import match_layers
from engine.quantisation.int8.result import Int8Result, require_some
from engine.torchscript.int8.dynamic import lower_dynamic
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.program import Program


def quantise_dynamic(program: Program, *, exclude: Sequence[str] = ()) -> Int8Result:
    """Replace linear and recurrent layers by torch's dynamic int8 operators.

    Args:
        program: in floating point; it is left as it is.
        exclude: patterns of layers that stay as they are.

    Raises:
        NothingQuantised: no layer can be, with the reasons.
        PatternMatchesNothing: a pattern of `exclude` matches no layer.
        WeightsNotNumbers: a weight holds NaN or an infinite value.
    """
    excluded = match_layers(program.layer_names(), exclude)
    lowered, layers = lower_dynamic(prepared(on_cpu(program)), excluded)
    require_some(layers, "scheme")
    return Int8Result(lowered, tuple(layers))


def on_cpu(program: Program) -> Program:
    """A copy on the CPU, where torch's int8 operators run."""
    return program.copy() if program.device == "cpu" else Program.load(program.to_bytes())
