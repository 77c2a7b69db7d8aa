"""Run as a script: does a model file give what `example.pt` beside it expects?

    python -I libtorch.py folder answers.pt

calls `folder/model.pt` with the stored arguments, and writes [[expected, found]] of every call.
What `main.cpp` does, where no compiler is at hand to build it.
"""

import pathlib
import sys
from typing import Any

import torch


def _main(folder_path: str, answers_path: str) -> None:
    folder = pathlib.Path(folder_path)
    model: Any = torch.jit.load(folder / "model.pt")  # type: ignore[no-untyped-call]
    example: Any = torch.jit.load(folder / "example.pt")  # type: ignore[no-untyped-call]
    answers = []
    with torch.inference_mode():
        for call in range(example.calls):
            inputs = [getattr(example, f"input_{at}_{call}") for at in range(example.arguments)]
            torch.manual_seed(0)
            answers.append([getattr(example, f"expected_{call}"), model(*inputs)])
    torch.save([_plain(pair) for pair in answers], answers_path)


def _plain(value: Any) -> Any:
    """Named tuples as tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(_plain(item) for item in value)
    return value


if __name__ == "__main__":
    _main(*sys.argv[1:3])
