"""The weights alone, as safetensors: a state dict by the names that the upload gave them.

Tensors that are tied are one tensor in the file, under the first of their names in sorted order;
the file's metadata say for each other name which tensor it is, as `safetensors.torch.save_model`
does. What reads it: a fresh process, which compares every tensor with the TorchScript file's, bit
by bit.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.exports.fresh import run_fresh
from engine.exports.request import Exported, ExportFailed, ExportRequest
from engine.torchscript.program import memory_of

_CHECK = Path(__file__).with_name("checks") / "safetensors_file.py"
_FORMAT = "format"


def write(request: ExportRequest) -> Exported:
    """Write the state dict, and read it in a fresh process.

    Raises:
        ExportFailed: a tensor has a type that the format does not know, or is not read back.
    """
    source = request.program_file or request.model
    module = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
    tensors, tied = _once(module.state_dict())
    if not tensors:
        raise ExportFailed(
            "the model has no parameters and no buffers",
            hint="its tensors are constants of the graph; use a format that holds the graph",
        )
    if _FORMAT in tied:
        raise ExportFailed(
            f"a tied tensor is named `{_FORMAT}`, a name that the file's metadata use",
            where=_FORMAT,
        )
    path, answer = request.folder / "compact.safetensors", request.folder / "answer.json"
    try:
        save_file(tensors, path, metadata={_FORMAT: "pt", **tied})
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ExportFailed(f"safetensors does not take the tensors: {error}") from error
    run_fresh(_CHECK, path, source, answer, seconds=request.seconds)
    different = json.loads(answer.read_text())["different"]
    answer.unlink()
    if different:
        raise ExportFailed(
            f"{len(different)} tensors are read back otherwise, such as `{different[0]}`",
            where=different[0],
        )
    return Exported(
        path=path,
        verified_by=f"safetensors {version('safetensors')}, every tensor compared",
        relative_error=0.0,
        tolerance=0.0,
        notes=_notes(tied),
    )


def _once(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every memory once, in layouts of its own, and the other names of each."""
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name in sorted(state):
        tensor = state[name]
        key = memory_of(tensor)
        if key in names:
            tied[name] = names[key]
        else:
            names[key] = name
            # A part of another tensor's memory gets memory of its own.
            tensors[name] = tensor.detach().contiguous().clone()
    return tensors, tied


def _notes(tied: dict[str, str]) -> tuple[str, ...]:
    if not tied:
        return ()
    name, kept = next(iter(tied.items()))
    count = f"{len(tied)} names share" if len(tied) > 1 else "one name shares"
    return (f"{count} a tensor with another (`{name}` is `{kept}`); the metadata name them",)
