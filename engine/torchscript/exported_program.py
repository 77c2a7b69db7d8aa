"""TorchScript as a `torch.export.ExportedProgram`, by a converter that torch keeps private.

Present and alike in torch 2.11 to 2.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.torchscript.program import Program


def exported_program(program: Program, inputs: Sequence[Any]) -> Any:
    """The program converted, traced on inputs of tensors in lists, tuples and dictionaries.

    Raises:
        Exception: of any kind, where a pass of the converter meets what it does not know.
    """
    # Imported when it is needed: it is slow to load, and no other part of the engine uses it.
    from torch._export.converter import TS2EPConverter  # noqa: PLC0415

    # A graph that has run is not read as it is written.
    module = program.copy(share=True).module
    return TS2EPConverter(module, tuple(inputs)).convert()
