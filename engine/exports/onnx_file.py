"""ONNX, by torch's exporter of TorchScript graphs, run by onnxruntime.

The graph that is exported takes and gives tensors by name, without the control flow that shapes
decide (`engine.exports.tensors`). Where the model takes any number of samples, the first dimension
of inputs that have one is left open, and the file is run with two numbers of samples; where that
does not come out, the number is fixed to that of the example, unless the recipe asks for an open
one. Encoded weights are exported in floating point. A result in static int8 is exported as it is
calibrated, with QuantizeLinear and DequantizeLinear (`engine.exports.int8_onnx`).

A message of protobuf holds less than 2 GiB. The weights of a larger model lie in a file beside, and
both are delivered as a zip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from engine.exports.fresh import run_fresh
from engine.exports.int8_onnx import int8_tolerance, rounded_of, rounding_error
from engine.exports.onnx_integers import store_integers
from engine.exports.request import Exported, ExportFailed, ExportRequest
from engine.exports.tensors import TensorCase, TensorModel, largest_error, tensor_model

_RUN = Path(__file__).with_name("checks") / "onnx_file.py"
_FILE = "compact.onnx"
LARGEST_MESSAGE = (1 << 31) - (1 << 24)
"""Bytes of weights that fit in one file beside the graph."""


def write(request: ExportRequest) -> Exported:
    """Export, check and run.

    Options: `opset`, `dynamic_batch` (None: where it works).

    Raises:
        ExportFailed: torch has no translation of an operator, or onnxruntime does not run the file.
    """
    wanted = request.options["dynamic_batch"]
    with torch.no_grad():
        rounded = rounded_of(request)
        model = tensor_model(request, None if rounded is None else rounded.program)
    tolerance, notes = request.tolerance, list(model.notes)
    if rounded is not None:
        with torch.no_grad():
            rounding = rounding_error(request)
        allowed = int8_tolerance(model.cases, rounded.output_step, rounding)
        tolerance = max(tolerance, allowed)
        notes.append("it computes in int8, with the scales of the TorchScript file")
    form = _Form(tolerance, int8=rounded is not None)
    open_batch = len(model.cases) > 1 and bool(model.with_samples)
    if wanted and not open_batch:
        raise ExportFailed(
            "the model takes no other number of samples than its example has",
            hint="leave `dynamic_batch` out, or upload a model that takes any",
        )
    if open_batch and wanted is not False:
        try:
            return _made(request, model, form, model.cases, notes)
        except ExportFailed as error:
            if wanted:
                raise
            notes.append(f"the number of samples is fixed; with an open one: {error.title}")
    elif not open_batch:
        notes.append("the number of samples is fixed, as in the TorchScript file")
    return _made(request, model, form, model.cases[:1], notes)


@dataclass(frozen=True)
class _Form:
    """How the file computes: how far it may be off, and whether weights are integers."""

    tolerance: float
    int8: bool


def _made(
    request: ExportRequest,
    model: TensorModel,
    form: _Form,
    cases: Sequence[TensorCase],
    notes: list[str],
) -> Exported:
    """Export for these cases, and run them; of more than one, the number of samples is open."""
    any_batch = len(cases) > 1
    path = _convert(request, model, any_batch=any_batch, int8=form.int8)
    error = largest_error(cases, _run(request, path, model, cases))
    if any_batch and not error <= form.tolerance:
        raise ExportFailed(f"its outputs differ by {error:.2g} of the largest output")
    return Exported(
        path=path.parent if len(list(path.parent.iterdir())) > 1 else path,
        verified_by=f"onnxruntime {version('onnxruntime')} on CPU",
        relative_error=error,
        tolerance=form.tolerance,
        batch_sizes=tuple(case.batch_size for case in cases),
        any_batch=any_batch,
        notes=tuple(notes),
    )


def _convert(request: ExportRequest, model: TensorModel, *, any_batch: bool, int8: bool) -> Path:
    folder = request.folder / ("open" if any_batch else "fixed")
    raw = request.folder / f"raw_{folder.name}"
    folder.mkdir()
    raw.mkdir()
    try:
        torch.onnx.export(
            # A graph that has run is not exported as it is written.
            model.program.copy(share=True).module,
            model.cases[0].inputs,
            str(raw / _FILE),
            dynamo=False,
            opset_version=request.options["opset"],
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            dynamic_axes={name: {0: "batch"} for name in model.with_samples} if any_batch else None,
        )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
        raise ExportFailed(f"torch cannot export it: {_said(error)}") from error
    path = folder / _FILE
    weights = sum(t.numel() * t.element_size() for t in model.program.attributes().values())
    if weights < LARGEST_MESSAGE and not int8:
        (raw / _FILE).replace(path)
    else:
        written = onnx.load(raw / _FILE)
        if int8:
            if not store_integers(written):
                raise ExportFailed("no weight of the file is stored as integers")
            weights = sum(len(one.raw_data) for one in written.graph.initializer)
        # Torch writes a file for each tensor of a large model; here they are one.
        onnx.save(
            written,
            path,
            save_as_external_data=weights >= LARGEST_MESSAGE,
            all_tensors_to_one_file=True,
            location=f"{_FILE}.data",
            convert_attribute=True,  # weights of the outermost module are constants of nodes
        )
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportFailed(f"onnx.checker refuses the file: {_said(error)}") from error
    return path


def _run(
    request: ExportRequest, path: Path, model: TensorModel, cases: Sequence[TensorCase]
) -> list[list[Tensor]]:
    """Outputs of every case by onnxruntime, in a fresh process."""
    given, found = request.folder / "given.npz", request.folder / "found.npz"
    arrays = {}
    for at, case in enumerate(cases):
        for name, tensor in zip(model.inputs, case.inputs, strict=True):
            if tensor.dtype == torch.bfloat16:
                raise ExportFailed(f"onnxruntime takes no bfloat16 on a CPU (input `{name}`)")
            arrays[f"{at}/{name}"] = tensor.numpy()
    np.savez(given, **arrays)  # type: ignore[arg-type]  # the names are no options of savez
    names = json.dumps([list(model.inputs), list(model.outputs), len(cases)])
    threads = str(torch.get_num_threads())
    run_fresh(_RUN, path, given, found, names, threads, seconds=request.seconds)
    with np.load(found) as outputs:
        got = [
            [torch.from_numpy(outputs[f"{at}/{name}"]) for name in model.outputs]
            for at in range(len(cases))
        ]
    given.unlink()
    found.unlink()
    return got


def _said(error: Exception) -> str:
    """The first sentence of what an exporter or a checker says, which goes on for pages."""
    first = str(error).strip().partition("\n")[0].partition("[Caused by")[0]
    return first.strip()[:500] or type(error).__name__
