"""Int8 with ranges of activations that are known before: calibrated on data, or learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.coupling.exclusion import match_layers
from engine.quantisation.int8.calibration import calibrate
from engine.quantisation.int8.dynamic import on_cpu
from engine.quantisation.int8.observers import Observer
from engine.quantisation.int8.ranges import Ranges
from engine.quantisation.int8.result import Int8Result, require_some
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.static import lower, plan_static
from engine.torchscript.program import Program


def quantise_static(
    program: Program,
    batches: Iterable[Sequence[Any]],
    *,
    observer: Observer = "histogram",
    percentile: float = 99.99,
    exclude: Sequence[str] = (),
) -> Int8Result:
    """Calibrate a program on data and lower it to int8.

    Args:
        program: in floating point; it is left as it is.
        batches: arguments of forward.
        observer: how the range of each activation is chosen.
        percentile: of values that are kept, for the observer of that name.
        exclude: patterns of layers that stay as they are.

    Raises:
        NothingQuantised: no layer can be, with the reasons.
        DatasetInvalid: there is no batch, or values are NaN or infinite.
        PatternMatchesNothing: a pattern of `exclude` matches no layer.
        WeightsNotNumbers: a weight holds NaN or an infinite value.
    """
    excluded = match_layers(program.layer_names(), exclude)
    ready = prepared(on_cpu(program))
    plan = plan_static(ready, excluded)
    ranges = calibrate(ready, plan, batches, observer=observer, percentile=percentile)
    return lower_prepared(ready, ranges, list(excluded))


def lower_static(program: Program, ranges: Ranges, exclude: Sequence[str] = ()) -> Int8Result:
    """Lower a program to int8 by ranges that are known.

    Args:
        program: in floating point; it is left as it is.
        ranges: by place of the prepared program.
        exclude: patterns of layers that stay as they are.

    Raises:
        NothingQuantised: no layer can be, with the reasons.
    """
    excluded = match_layers(program.layer_names(), exclude)
    return lower_prepared(prepared(on_cpu(program)), ranges, list(excluded))


def lower_prepared(ready: Program, ranges: Ranges, excluded: Sequence[str]) -> Int8Result:
    """Lower a program that is prepared already (see `engine.torchscript.int8.preparing`)."""
    lowered, layers = lower(ready, ranges.get, excluded)
    require_some(layers, "scheme")
    return Int8Result(lowered, tuple(layers))
