"""A network small enough to count by hand, and recipes that aim at a cost of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder

FAST = {"batch_sizes": [1], "runs": 5}
IN_ROUNDS = {"kind": "iterative", "rounds": 3, "finetune": None}


class Tiny(nn.Module):
    """A convolution with nearly all multiplications, and products with nearly all weights."""

    def __init__(self, hidden=20):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.hidden = nn.Linear(4, hidden, bias=False)
        self.head = nn.Linear(hidden, 2, bias=False)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(torch.relu(self.conv(x)).mean((2, 3)))))


def macs(k, h):
    """Of k channels at 64 positions and h neurons."""
    return 64 * 9 * k + k * h + 2 * h


def params(k, h):
    return 9 * k + k * h + 2 * h


def recipe(target, *, dataset=False, **fields):
    allocation = {"target": target} | fields.pop("allocation", {})
    inputs = {} if dataset else {"inputs": [{"shape": [2, 1, 8, 8]}]}
    return {
        "stages": [{"stage": "prune", "allocation": allocation} | fields],
        "measure": FAST,
    } | inputs


def widths(report):
    shapes = {item.name: item.shape_after for item in report.layers}
    return shapes["conv.weight"][0], shapes["hidden.weight"][0]


def until_the_end(job, steps, kept=None):
    """The state after so many checkpoints, without the measuring that follows the last step."""
    with pytest.raises(KeyboardInterrupt):
        compress(job, Recorder(stop_at=steps + 1, keep=kept))
    return load_checkpoint(
        job.workdir / "checkpoint.pt", Program.load(job.model), fingerprint=fingerprint_of(job)
    )
