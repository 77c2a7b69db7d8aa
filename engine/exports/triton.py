"""A model repository of Triton Inference Server, for its PyTorch backend (LibTorch).

    repository/NAME/config.pbtxt
    repository/NAME/1/model.pt

The backend passes tensors, gives a tensor or a tuple of tensors, and knows no other structure. A
model with lists, dictionaries or nested tuples is wrapped (`engine.torchscript.tensors_only`): its
tensors become inputs and outputs of their own, named by the keys that lead to them.

What is written into the configuration is what was seen: types and sizes of the example, and of the
results at two batch sizes. Where all of them have the batch in front, Triton may join requests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.certify import relative_error
from engine.exports.fresh import run_fresh
from engine.exports.request import Case, Exported, ExportFailed, ExportRequest
from engine.exports.tensor_names import input_names, output_names
from engine.exports.triton_config import DATA_TYPES, ModelConfig, TensorConfig
from engine.structure import at_batch_size, leaves, tensors_in
from engine.torchscript.arguments import arguments_of
from engine.torchscript.tensors_only import NotFlat, flatten, is_flat

_POSITION = re.compile(r"output(_\d+)*")
_CHECK = Path(__file__).with_name("checks") / "triton.py"


def write(request: ExportRequest) -> Exported:
    """Write the repository and serve the example from it in a fresh process.

    Raises:
        ExportFailed: the backend cannot pass what the model takes or gives, or the model does not
            do in it what the configuration says.
    """
    limit, cases = int(request.options["max_batch_size"]), request.cases
    batched = _batched(cases)
    name = str(request.options["name"])
    config = ModelConfig(
        name=name,
        platform="pytorch_libtorch",
        max_batch_size=limit if batched else 0,
        inputs=_described(_names_in(request), [case.inputs for case in cases], batched=batched),
        outputs=_described(
            _names_out(cases[0]), [case.expected for case in cases], batched=batched
        ),
    )
    repository = request.folder / "repository"
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(config.text())
    notes = _write_model(request, cases[0], version / "model.pt")
    served = [_within(case, limit, request) for case in cases] if batched else cases
    error = _serve(request, repository, served)
    return Exported(
        path=repository,
        verified_by=f"torch {torch.__version__} on CPU, fed by the names, types and sizes of "
        "config.pbtxt; no Triton server ran",
        relative_error=error,
        tolerance=request.tolerance,
        batch_sizes=tuple(dict.fromkeys(case.batch_size for case in served)),
        any_batch=len(cases) > 1,
        notes=tuple(notes),
    )


def _within(case: Case, limit: int, request: ExportRequest) -> Case:
    """The case with no more samples than Triton may send at once."""
    if case.batch_size <= limit:
        return case
    inputs = at_batch_size(case.inputs, limit)
    return Case(inputs, request.expected(inputs))


def _batched(cases: Sequence[Case]) -> bool:
    """Whether every tensor has the batch in front: seen, not guessed, so at two sizes."""
    return len({case.batch_size for case in cases}) > 1 and all(
        tensor.dim() > 0 and tensor.shape[0] == case.batch_size
        for case in cases
        for tensor in (*tensors_in(case.inputs), *tensors_in(case.expected))
    )


def _names_in(request: ExportRequest) -> list[str]:
    arguments = [argument.name for argument in arguments_of(request.delivered)]
    return [f"{name}__{at}" for at, name in enumerate(input_names(arguments, request.inputs))]


def _names_out(case: Case) -> list[str]:
    names = output_names(case.expected)
    if all(_POSITION.fullmatch(name) for name in names):
        names = ["OUTPUT"] * len(names)
    return [f"{name}__{at}" for at, name in enumerate(names)]


def _described(names: Sequence[str], values: Sequence[Any], *, batched: bool) -> list[TensorConfig]:
    """Every tensor of the structures, which are alike."""
    described = []
    for name, tensors in zip(names, zip(*map(tensors_in, values), strict=True), strict=True):
        data_type = DATA_TYPES.get(tensors[0].dtype)
        if data_type is None:
            raise ExportFailed(
                f"Triton's PyTorch backend passes no {_short(tensors[0])} tensors, which "
                f"`{name.rpartition('__')[0]}` is",
                where=name,
            )
        if len({tensor.dim() for tensor in tensors}) > 1:
            raise ExportFailed(
                f"`{name}` has another number of dimensions at another batch size", where=name
            )
        sizes = zip(*(tensor.shape for tensor in tensors), strict=True)
        dims = tuple(own[0] if len(set(own)) == 1 else -1 for own in sizes)
        described.append(TensorConfig(name, data_type, dims[1:] if batched else dims))
    return described


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _write_model(request: ExportRequest, case: Case, target: Path) -> list[str]:
    """The file that Triton loads; what is to be said of it."""
    if not tensors_in(case.inputs):
        raise ExportFailed("the model takes no tensor, and Triton's requests hold nothing else")
    if is_flat(case.inputs, case.expected):
        shutil.copyfile(request.model, target)
        return []
    try:
        flat = flatten(request.delivered.module, case.inputs, case.expected)
    except NotFlat as error:
        raise ExportFailed(
            f"Triton passes tensors only, and {error}",
            hint="let forward take and give tensors, in lists, tuples or dictionaries if need be",
        ) from error
    flat.save(str(target))
    notes = [
        "the model is wrapped: tensors of its lists, tuples and dictionaries are inputs and outputs"
        " of their own"
    ]
    for argument, value in zip(arguments_of(request.delivered), case.inputs, strict=False):
        if not tensors_in(value):
            notes.append(f"`{argument.name}` is always {value!r} in it")
    if list(leaves(case.expected, type(None))):
        notes.append("results that are None with the example are left out")
    return notes


def _serve(request: ExportRequest, repository: Path, cases: Sequence[Case]) -> float:
    calls, answers = request.folder / "calls.pt", request.folder / "answers.pt"
    torch.save([tensors_in(case.inputs) for case in cases], calls)
    run_fresh(_CHECK, repository, calls, answers, seconds=request.seconds)
    found = torch.load(answers, weights_only=True)
    calls.unlink()
    answers.unlink()
    return max(
        relative_error(tensors_in(case.expected), own)
        for case, own in zip(cases, found, strict=True)
    )
