"""OpenVINO's intermediate representation: a graph (`compact.xml`) and its weights (`compact.bin`).

Two ways lead there, tried in this order until one gives a file that computes the same:

1. OpenVINO's reader of TorchScript, on the graph without nested arguments and without the control
   flow that shapes decide (`engine.exports.tensors`);
2. its reader of ONNX, on what `engine.exports.onnx_file` writes.

Both are tried with an open number of samples first, where the model takes any, and then with that
of the example.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.exports import onnx_file
from engine.exports.fresh import run_fresh
from engine.exports.openvino_library import (
    FAILURES,
    FrontEndManager,
    TorchScriptPythonDecoder,
    openvino,
    pt_to_ov_type_map,
)
from engine.exports.request import Exported, ExportFailed, ExportRequest
from engine.exports.tensors import TensorCase, TensorModel, largest_error, tensor_model

_RUN = Path(__file__).with_name("checks") / "openvino_ir.py"
_FILE = "compact.xml"
_TOLD = re.compile(r"^-- (No conversion rule found for operations|Conversion is failed for): (.+)$")
_PRECISION = (
    "set INFERENCE_PRECISION_HINT to f32 to compute in float32: OpenVINO computes in bfloat16 on "
    "processors that can, unless it is set"
)
_HALF_TOLERANCE = 8 * torch.finfo(torch.float16).eps


def write(request: ExportRequest) -> Exported:
    """Convert, save and run.

    Options: `weights` (`float32`, or `float16` for a file of half the size).

    Raises:
        ExportFailed: neither way gives a file that computes the same.
    """
    with torch.no_grad():
        model = tensor_model(request)
    for name, tensor in zip(model.inputs, model.cases[0].inputs, strict=True):
        if tensor.dtype == torch.bfloat16 or tensor.is_complex():
            raise ExportFailed(f"OpenVINO takes no {tensor.dtype} from its callers (`{name}`)")
    reasons: list[str] = []
    for attempt in _attempts(request, model):
        try:
            made = attempt()
        except ExportFailed as error:
            reasons.append(error.title)
            continue
        if made.relative_error <= made.tolerance:
            return made
        reasons.append(f"outputs differ by {made.relative_error:.2g} of the largest")
    raise ExportFailed(f"OpenVINO cannot hold it: {reasons[0]}; by way of ONNX: {reasons[-1]}")


def _attempts(request: ExportRequest, model: TensorModel) -> Iterator[Callable[[], Exported]]:
    """The ways, with what is left open."""
    if len(model.cases) > 1 and model.with_samples:
        yield lambda: _by_torchscript(request, model, model.cases)
    yield lambda: _by_torchscript(request, model, model.cases[:1])
    yield lambda: _by_onnx(request, model)


def _by_torchscript(
    request: ExportRequest, model: TensorModel, cases: Sequence[TensorCase]
) -> Exported:
    any_batch = len(cases) > 1
    reader = FrontEndManager().load_by_framework("pytorch")
    try:
        # A graph that has run is not read as it is written. The reader does not keep the decoder.
        decoder = TorchScriptPythonDecoder(model.program.copy(share=True).module)
        graph = reader.load(decoder)
        places = graph.get_inputs()[-len(model.inputs) :]
        for place, name, tensor in zip(places, model.inputs, cases[0].inputs, strict=True):
            sizes = list(tensor.shape)
            if any_batch and name in model.with_samples:
                sizes[0] = -1
            graph.set_element_type(place, pt_to_ov_type_map[str(tensor.dtype)])
            graph.set_partial_shape(place, openvino.PartialShape(sizes))
        converted = reader.convert(graph)
    except (*FAILURES, ValueError, KeyError, TypeError) as error:
        raise ExportFailed(_said(error)) from error
    if len(converted.inputs) != len(model.inputs):
        raise ExportFailed("its reader of TorchScript lost an input")
    for port, name in zip(converted.inputs, model.inputs, strict=True):
        port.get_node().set_friendly_name(name)
        port.get_tensor().set_names({name})
    return _made(request, model, cases, converted, list(model.notes))


def _by_onnx(request: ExportRequest, model: TensorModel) -> Exported:
    folder = request.folder / "onnx"
    folder.mkdir(exist_ok=True)
    options = {"opset": 17, "dynamic_batch": None}
    made = onnx_file.write(replace(request, folder=folder, options=options, lowering=None))
    file = made.path if made.path.is_file() else next(made.path.glob("*.onnx"))
    reader = FrontEndManager().load_by_framework("onnx")
    try:
        converted = reader.convert(reader.load(str(file)))
    except FAILURES as error:
        raise ExportFailed(_said(error)) from error
    notes = ["converted by way of ONNX", *made.notes]
    cases = model.cases if made.any_batch else model.cases[:1]
    return _made(request, model, cases, converted, notes)


def _made(
    request: ExportRequest,
    model: TensorModel,
    cases: Sequence[TensorCase],
    converted: Any,
    notes: list[str],
) -> Exported:
    if len(converted.outputs) != len(model.outputs):
        raise ExportFailed("another number of results came out")
    for port, name in zip(converted.outputs, model.outputs, strict=True):
        port.get_tensor().set_names({name})
    folder = request.folder / "ir"
    folder.mkdir(exist_ok=True)
    half = request.options["weights"] == "float16"
    openvino.save_model(converted, folder / _FILE, compress_to_fp16=half)
    error = largest_error(cases, _run(request, folder / _FILE, model, cases))
    return Exported(
        path=folder,
        verified_by=f"OpenVINO {openvino.__version__.partition('-')[0]} on CPU, in float32",
        relative_error=error,
        tolerance=max(request.tolerance, _HALF_TOLERANCE) if half else request.tolerance,
        batch_sizes=tuple(case.batch_size for case in cases),
        any_batch=len(cases) > 1,
        notes=(*notes, _PRECISION),
    )


def _run(
    request: ExportRequest, path: Path, model: TensorModel, cases: Sequence[TensorCase]
) -> list[list[Tensor]]:
    """Outputs of every case by OpenVINO, in a fresh process."""
    given, found = request.folder / "given.npz", request.folder / "found.npz"
    arrays = {
        f"{at}/{name}": tensor.numpy()
        for at, case in enumerate(cases)
        for name, tensor in zip(model.inputs, case.inputs, strict=True)
    }
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
    """What a reader names as the reason, in pages of its own places."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [found for line in lines if (found := _TOLD.match(line))]
    if told:
        words = {"No conversion rule found for operations": "it has no {}"}
        first = told[0]
        return words.get(first.group(1), "it cannot convert {}").format(first.group(2))[:500]
    return (lines[-1] if lines else type(error).__name__)[:500]
