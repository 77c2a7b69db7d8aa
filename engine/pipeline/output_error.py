"""How far quantisation moves the outputs on the example."""

from __future__ import annotations

import torch

from engine.calling import call, plain_execution
from engine.certify import relative_error
from engine.pipeline.setup import Workbench
from engine.torchscript.program import Program


@torch.no_grad()
def output_error(bench: Workbench, before: Program, after: Program) -> float:
    """Largest change of an output on the example, over the largest output."""
    with plain_execution():
        torch.manual_seed(0)
        expected = call(before.twin().module, bench.inputs)
        torch.manual_seed(0)
        found = call(after.twin().module, bench.inputs)
    return relative_error(expected, found)
