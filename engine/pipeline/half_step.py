"""A quantise step that makes the program compute in half precision."""

from __future__ import annotations

import torch
from secateur.recipe_quantize import HalfPrecision
from secateur.report import QuantizationReport, QuantizedLayer
from torch import Tensor

from engine.calling import call, plain_execution
from engine.certify import relative_error
from engine.coupling.exclusion import match_layers
from engine.pipeline.checkpoint import JobState
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import QuantizeStep
from engine.quantisation.half_compute import HalfCompute
from engine.quantisation.half_lowering import HalfLowering
from engine.structure import map_tensors
from engine.torchscript.program import Program


@torch.no_grad()
def half_step(bench: Workbench, state: JobState, step: QuantizeStep) -> QuantizationReport:
    """Lower the arithmetic of the job's file; its program stays in floating point.

    Raises:
        EngineError: see `engine.quantisation.half_compute.in_half`.
    """
    stage = step.stage
    assert isinstance(stage, HalfPrecision)  # noqa: S101  callers look at the stage
    given = state.program
    excluded = match_layers(given.layer_names(), stage.exclude, f"{step.field}.exclude")
    names = [name for name in given.parameters() if name.rpartition(".")[0] in excluded]
    inputs = [map_tensors(value, Tensor.cpu) for value in bench.inputs]
    lowering = HalfLowering(stage.scheme, stage.interface, tuple(names), inputs)
    # The file is written from the CPU, so operators are tried there.
    whole = given if given.device == "cpu" else Program.load(given.to_bytes())
    done = lowering.convert(whole)
    state.quantised.lowering = lowering
    layers = [
        _layer(name, tensor, done, excluded.get(name.rpartition(".")[0]))
        for name, tensor in given.parameters().items()
    ]
    lowered = [layer for layer in layers if layer.form == "half"]
    bits = sum(layer.bytes_after for layer in lowered) * 8
    elements = sum(torch.Size(layer.shape).numel() for layer in lowered)
    with plain_execution():
        error = relative_error(
            _wide(call(whole.twin().module, inputs)),
            _wide(call(done.program.twin().module, inputs)),
        )
    return QuantizationReport(
        stage_index=step.stage_index,
        scheme=stage.scheme,
        layers=layers,
        bits=bits / max(elements, 1),
        output_error=error,
        warnings=_warnings(done),
    )


def _layer(name: str, tensor: Tensor, done: HalfCompute, pattern: str | None) -> QuantizedLayer:
    found = done.program.attributes()[name]
    lowered = found.dtype != tensor.dtype
    before = tensor.numel() * tensor.element_size()
    wide = tensor.detach().double().cpu()
    norm = float(torch.linalg.vector_norm(wide)) or 1.0
    reason = None
    if not lowered:
        reason = f"excluded by `{pattern}`" if pattern else "it is read in float32"
    return QuantizedLayer(
        name=name,
        shape=list(tensor.shape),
        form="half" if lowered else "float",
        bits=8.0 * found.element_size(),
        bytes_before=before,
        bytes_after=found.numel() * found.element_size(),
        relative_error=float(torch.linalg.vector_norm(wide - found.double())) / norm
        if lowered
        else None,
        reason=reason,
    )


def _warnings(done: HalfCompute) -> list[str]:
    told = [f"{one.kind} in `{one.where}` stays in float32: {one.reason}" for one in done.wide[:8]]
    if len(done.wide) > 8:
        told.append(f"{len(done.wide) - 8} more operators stay in float32")
    if 2 * len(done.wide) > done.operators:
        told.append(
            "most operators stay in float32: bfloat16 has its range, or store weights alone"
        )
    if done.untaken:
        told.append(
            f"{done.untaken} operators lie in branches that the example does not take and were "
            "not tried in half precision"
        )
    if done.methods:
        listed = ", ".join(f"`{name}`" for name in done.methods)
        told.append(f"{listed}, which forward calls, read half weights and were not converted")
    return told


def _wide(outputs: object) -> object:
    return map_tensors(outputs, lambda one: one.double() if one.is_floating_point() else one)
