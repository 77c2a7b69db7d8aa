"""An ExportedProgram (`.pt2`), for `torch.export.load`.

Torch converts TorchScript graphs by a private class, which `engine.torchscript.exported_program`
keeps. The structure of arguments and results stays where it holds tensors only; plain values among
the arguments are fixed, and the tensors then stand by themselves. Every dimension that the
converter can leave open is open: where it takes the product of two sizes for a constant, the number
of samples is that of the example.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from engine.certify import relative_error
from engine.errors import EngineError
from engine.exports.fresh import run_fresh
from engine.exports.request import Case, Exported, ExportFailed, ExportRequest
from engine.exports.tensors import tensor_model
from engine.structure import tensors_in
from engine.torchscript.exported_program import exported_program
from engine.torchscript.program import Program
from engine.torchscript.straight import straighten

_RUN = Path(__file__).with_name("checks") / "pt2_file.py"


def write(request: ExportRequest) -> Exported:
    """Convert, save, load and run.

    Options: `dynamic_batch` (None: where it works).

    Raises:
        ExportFailed: torch has no conversion of the graph, or the file does not load and run.
    """
    with torch.no_grad():
        program, cases, notes = given(request)
    path = request.folder / "compact.pt2"
    why = "as in the TorchScript file"
    if len(cases) > 1:
        # Traced on more than one sample: torch takes a size of one for a constant.
        _convert(program, cases[1], path)
        found = _run(request, path, cases)
        errors = [_error(case, got) for case, got in zip(cases, found, strict=True)]
        if max(errors) <= request.tolerance:
            return _exported(request, path, cases, errors, notes)
        refused = [got for got in found if isinstance(got, str)]
        why = refused[0] if refused else "another one computes otherwise"
    if request.options["dynamic_batch"]:
        raise ExportFailed(
            f"the file takes no other number of samples: {why}", hint="leave `dynamic_batch` out"
        )
    _convert(program, cases[0], path)
    (found,) = _run(request, path, cases[:1])
    if isinstance(found, str):
        raise ExportFailed(f"the file does not run: {found}")
    notes = [*notes, f"the number of samples is fixed: {why}"]
    return _exported(request, path, cases[:1], [_error(cases[0], found)], notes)


def _convert(program: Program, case: Case, path: Path) -> None:
    try:
        with torch.no_grad():
            made = exported_program(program, case.inputs)
    except Exception as error:
        # The converter raises whatever its passes raise.
        first = str(error).strip().partition("\n")[0][:500]
        raise ExportFailed(f"torch cannot convert it: {first or type(error).__name__}") from error
    torch.export.save(made, path)


def _exported(
    request: ExportRequest,
    path: Path,
    cases: Sequence[Case],
    errors: Sequence[float],
    notes: Sequence[str],
) -> Exported:
    return Exported(
        path=path,
        verified_by=f"torch.export.load of torch {torch.__version__} in a fresh process",
        relative_error=max(errors),
        tolerance=request.tolerance,
        batch_sizes=tuple(case.batch_size for case in cases),
        any_batch=len(cases) > 1,
        notes=tuple(notes),
    )


def given(request: ExportRequest) -> tuple[Program, Sequence[Case], list[str]]:
    """What is converted, and the cases as it takes them."""
    if all(isinstance(value, torch.Tensor) for value in request.inputs):
        program = request.program
        # What cannot be followed step by step is left to the converter.
        with suppress(EngineError):
            program = straighten(program, [case.inputs for case in request.cases])
        return program, request.cases, []
    model = tensor_model(request)
    cases = [Case(case.inputs, tuple(case.expected)) for case in model.cases]
    taken = ", ".join(f"`{name}`" for name in model.inputs)
    results = ", ".join(f"`{name}`" for name in model.outputs)
    return (
        model.program,
        cases,
        [f"it takes {taken} by position, and gives {results}", *model.notes],
    )


def _error(case: Case, found: Any) -> float:
    if isinstance(found, str):
        return float("inf")
    expected = _listed(case.expected)
    if [one.dtype for one in tensors_in(expected)] != [one.dtype for one in tensors_in(found)]:
        return float("inf")
    return relative_error(expected, found)


def _listed(value: Any) -> Any:
    """Lists in the place of tuples: torch gives either for the other."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value


def _run(request: ExportRequest, path: Path, cases: Sequence[Case]) -> list[Any]:
    """What the file gives for every case in a fresh process: outputs, or what it raised."""
    given, found = request.folder / "given.pt", request.folder / "found.pt"
    torch.save(
        {"cases": [list(c.inputs) for c in cases], "threads": torch.get_num_threads()}, given
    )
    run_fresh(_RUN, path, given, found, seconds=request.seconds)
    outputs: list[Any] = torch.load(found, weights_only=True)
    given.unlink()
    found.unlink()
    return outputs
