"""A quantise step that computes in int8: calibrated, held to its limit, reported by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from secateur.recipe_quantize import Int8Options
from secateur.recipe_quantize import StaticInt8 as StaticStage
from secateur.report import QuantizationReport, QuantizedLayer
from torch import Tensor

from engine.calling import plain_execution
from engine.coupling.exclusion import match_layers
from engine.data.batches import batches, bounds, shuffled
from engine.errors import UnsupportedOperator
from engine.pipeline.checkpoint import JobState
from engine.pipeline.output_error import output_error
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import QuantizeStep
from engine.quantisation.int8.calibration import calibrate
from engine.quantisation.int8.fall_back import Build, FallenBack, drift_from, fall_back
from engine.quantisation.int8.lowerings import DynamicInt8, StaticInt8
from engine.quantisation.int8.ranges import Ranges
from engine.quantisation.int8.result import Int8Result, LayerQuantised, require_some
from engine.quantisation.int8.weights import code_channels
from engine.seeds import generator
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.static import plan_static
from engine.torchscript.program import Program

_BATCH = 64
_DYNAMIC_SAMPLES = 512


@torch.no_grad()
def int8_step(
    bench: Workbench, state: JobState, step: QuantizeStep, stage: Int8Options
) -> QuantizationReport:
    """Choose how the program computes in int8; the program of the state stays as it is.

    Raises:
        UnsupportedOperator: the job runs on a GPU.
        NothingQuantised: no layer can be quantised, or none within the limit.
        DatasetInvalid: calibration data holds NaN.
    """
    if bench.job.device != "cpu":
        raise UnsupportedOperator(
            "torch's int8 operators run on CPUs, and this job runs on a GPU",
            hint="run the job on a CPU, or quantise with `weight_only` or to a half type",
            where=f"{step.field}.scheme",
        )
    program = state.program
    excluded = tuple(match_layers(program.layer_names(), stage.exclude, f"{step.field}.exclude"))
    data = _samples(bench, step, stage)
    lowering: DynamicInt8 | StaticInt8 = DynamicInt8(excluded)
    if isinstance(stage, StaticStage):
        lowering = StaticInt8(_calibrated(program, stage, excluded, data), excluded)
    build = _builder(program, lowering)
    if stage.max_drift is None:
        done = FallenBack(build(()), drift=0.0)
    else:
        where = f"{step.field}.max_drift"
        done = fall_back(build, drift_from(program.twin(), data), stage.max_drift, where)
    require_some(done.result.layers, f"{step.field}.scheme")
    state.quantised.lowering = replace(lowering, excluded=(*excluded, *done.kept))
    report = QuantizationReport(
        stage_index=step.stage_index,
        scheme=lowering.scheme,
        decode=None,
        layers=_reported(program, done),
        bits=0.0,
        output_error=output_error(bench, program, done.result.program),
        warnings=_warnings(done, stage.max_drift),
    )
    changed = [layer for layer in report.layers if layer.form != "float"]
    numbers = sum(torch.Size(layer.shape).numel() for layer in changed)
    report.bits = 8 * sum(layer.bytes_after for layer in changed) / max(numbers, 1)
    return report


def _builder(program: Program, lowering: DynamicInt8 | StaticInt8) -> Build:
    def build(kept: tuple[str, ...]) -> Int8Result:
        return replace(lowering, excluded=(*lowering.excluded, *kept)).result(program)

    return build


def _calibrated(
    program: Program, stage: StaticStage, excluded: Sequence[str], data: Sequence[Sequence[Any]]
) -> Ranges:
    ready = prepared(program)
    with plain_execution():
        return calibrate(
            ready,
            plan_static(ready, excluded),
            data,
            observer=stage.observer,
            percentile=99.99 if stage.percentile is None else stage.percentile,
        )


def _samples(bench: Workbench, step: QuantizeStep, stage: Int8Options) -> list[list[Any]]:
    """Arguments of forward: samples of the training split, or the example without a dataset."""
    dataset, static = bench.dataset, isinstance(stage, StaticStage)
    if dataset is None or (dataset.train is None and not static):
        return [list(bench.inputs)]
    count = stage.samples if isinstance(stage, StaticStage) else _DYNAMIC_SAMPLES
    split = dataset.require_inputs("train", step.field)
    order = shuffled(split.samples, generator(bench.recipe.seed, "int8", "samples"))[:count]
    found = []
    for start, stop in bounds(len(order), min(_BATCH, len(order))):
        made = batches(split, stop - start, device="cpu", order=order[start:stop], merge_last=False)
        found.append(list(next(iter(made)).inputs))
    return found


def _reported(program: Program, done: FallenBack) -> list[QuantizedLayer]:
    """The weights of each layer."""
    held = program.attributes()
    by_layer: dict[str, list[str]] = {}
    for name, tensor in held.items():
        if tensor.dim() >= 2 and tensor.is_floating_point():
            by_layer.setdefault(name.rpartition(".")[0] or name, []).append(name)
    found: dict[str, QuantizedLayer] = {}
    for layer in done.result.layers:
        for name in by_layer.get(layer.name, ()):
            known = found.get(name)
            if known is None or known.form == "float":
                found[name] = _weight(name, held[name], layer, done.kept)
    return list(found.values())


def _weight(
    name: str, weight: Tensor, layer: LayerQuantised, kept: Mapping[str, float]
) -> QuantizedLayer:
    before = weight.numel() * weight.element_size()
    if layer.form == "float":
        reason = layer.reason
        if layer.name in kept:
            reason = f"quantised alone it moves the outputs by {kept[layer.name]:.2g}"
        return QuantizedLayer(
            name=name,
            shape=list(weight.shape),
            form="float",
            bits=8.0 * weight.element_size(),
            bytes_before=before,
            bytes_after=before,
            reason=reason,
        )
    coded = code_channels(weight, name)
    after = coded.codes.numel() + 4 * coded.scale.numel()
    norm = float(torch.linalg.vector_norm(weight.double())) or 1.0
    moved = float(torch.linalg.vector_norm(weight.double() - coded.decode().double()))
    return QuantizedLayer(
        name=name,
        shape=list(weight.shape),
        form="int8" if layer.form == "int8" else "encoded",
        bits=8 * after / weight.numel(),
        bytes_before=before,
        bytes_after=after,
        relative_error=moved / norm,
        reason=layer.reason or None,
    )


def _warnings(done: FallenBack, limit: float | None) -> list[str]:
    found = []
    if done.kept:
        named = ", ".join(f"`{layer}`" for layer in list(done.kept)[:6])
        more = f" and {len(done.kept) - 6} more" if len(done.kept) > 6 else ""
        found.append(
            f"{named}{more} keep floating point, so that outputs move by no more than {limit:g} "
            f"({done.drift:.2g} now)"
        )
    stays = [one for one in done.result.layers if one.form == "float" and one.name not in done.kept]
    if stays:
        counts: dict[str, int] = {}
        for one in stays:
            counts[one.op] = counts.get(one.op, 0) + 1
        listed = ", ".join(f"{op} ({count})" for op, count in counts.items())
        found.append(f"these operators compute in floating point: {listed}")
    return found
