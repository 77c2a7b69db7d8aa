"""The cost of a program as it is, of every kind that does not depend on a clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from secateur.recipe_target import Cost

from engine.measure.macs import count_macs
from engine.measure.size import parameter_count, weights_of
from engine.torchscript.program import Program


def cost_of(of: Cost, program: Program, inputs: Sequence[Any], folder: Path) -> int:
    """Parameters, multiply-accumulates per sample, or bytes of the file.

    Args:
        of: which of them.
        program: whose cost it is.
        inputs: the example.
        folder: where the file is written, to be measured and removed.
    """
    if of == "params":
        return parameter_count(weights_of(program))
    if of == "macs":
        return count_macs(program, inputs)
    if of == "bytes":
        with TemporaryDirectory(dir=folder) as place:
            file = Path(place) / "model.pt"
            program.save(file)
            return file.stat().st_size
    raise ValueError(f"{of} is measured, not counted")
