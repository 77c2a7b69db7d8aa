"""TorchScript files to pack."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Shared(nn.Module):
    """A weight of five shared values of which most are zero, a dense one, and packed indices."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        values = torch.tensor([0.0, -1.5, 0.25, 0.5, 2.0])
        drawn = torch.multinomial(torch.tensor([0.9, 0.04, 0.03, 0.02, 0.01]), 6400, True)
        self.shared = nn.Parameter(values[drawn].view(80, 80))
        self.dense = nn.Linear(80, 20)
        self.register_buffer("codes", torch.randint(0, 256, (3000,), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.dense(torch.relu(x @ self.shared)) + self.codes.sum()
        return logits


def write_model(path: Path) -> Path:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Shared().eval(), torch.zeros(2, 80)).save(str(path))
    return path
