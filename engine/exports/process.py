"""One export in a process of its own: `python -m engine.exports.process request.pt answer.json`.

The request is a file of tensors and plain data, the answer JSON: `{"made": {...}}`, or
`{"failed": reason}` where the format knows why. A crash leaves no answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from engine.errors import EngineError
from engine.exports.request import Exported, ExportRequest
from engine.parent_death import die_with_parent

_PATHS = ("model", "folder", "program_file")


def write_request(
    module: str, request: ExportRequest, path: Path, *, parent: int, threads: int
) -> None:
    """Store a request for the process that carries it out.

    Args:
        module: of the format.
        request: to store.
        path: of the file.
        parent: process that it shall not outlive.
        threads: that it may use.
    """
    plain = {item.name: getattr(request, item.name) for item in fields(request)}
    plain |= {name: None if plain[name] is None else str(plain[name]) for name in _PATHS}
    plain["options"] = dict(request.options)
    plain["lowering"] = None if request.lowering is None else dict(request.lowering)
    plain["encodings"] = {name: dict(value) for name, value in request.encodings.items()}
    stored = {"module": module, "request": plain, "parent": parent, "threads": threads}
    torch.save(stored, path)


def write_answer(
    write: Callable[[ExportRequest], Exported], request: ExportRequest, path: Path
) -> None:
    """Carry out the request, and store what became of it."""
    answer: dict[str, Any]
    try:
        made = write(request)
        answer = {"made": asdict(made) | {"path": str(made.path)}}
    except EngineError as error:
        answer = {"failed": f"{error.title}; {error.hint}" if error.hint else error.title}
    path.write_text(json.dumps(answer))


def read_answer(path: Path) -> Exported | str:
    """What the process answered: the export, or why there is none."""
    answer: dict[str, Any] = json.loads(path.read_text())
    if "failed" in answer:
        return str(answer["failed"])
    made = answer["made"]
    return Exported(
        path=Path(made.pop("path")),
        batch_sizes=tuple(made.pop("batch_sizes")),
        notes=tuple(made.pop("notes")),
        **made,
    )


def _request_of(plain: Mapping[str, Any]) -> ExportRequest:
    paths = {name: None if plain[name] is None else Path(plain[name]) for name in _PATHS}
    return ExportRequest(**{**plain, **paths})


def _main(request_path: str, answer_path: str) -> None:
    stored = torch.load(request_path, weights_only=True)
    die_with_parent(stored["parent"])
    torch.set_num_threads(stored["threads"])
    write = import_module(stored["module"]).write
    write_answer(write, _request_of(stored["request"]), Path(answer_path))


if __name__ == "__main__":
    _main(*sys.argv[1:3])
