"""Small TorchScript uploads, well behaved and not."""

# ruff: noqa: T201 (models print; that is what is tested)

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.engine.digits import write_digits, write_trained


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Endless(Linear):
    def forward(self, x: Tensor) -> Tensor:
        print("looping now")
        while True:
            x = x + 1
        return x


class Raising(Linear):
    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > 0:
            raise ValueError("this model refuses to run")
        return self.second(torch.relu(self.first(x)))


class Talkative(Linear):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2000):
            print("talk talk talk talk talk talk talk talk talk talk talk talk")
        return self.second(torch.relu(self.first(x)))


class Greedy(Linear):
    def forward(self, x: Tensor) -> Tensor:
        filler = torch.ones([1 << 33])
        return self.second(torch.relu(self.first(x))) + filler[0]


@cache
def scripted(kind: type[nn.Module]) -> bytes:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(kind().eval()), buffer)
    return buffer.getvalue()


RECIPE = {
    "inputs": [{"shape": [1, 4]}],
    "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
    "measure": {"runs": 5, "batch_sizes": [1]},
}


def training_recipe(epochs: int) -> dict[str, object]:
    return {
        "stages": [
            {"stage": "prune", "allocation": {"amount": 0.5}},
            {"stage": "finetune", "epochs": epochs, "batch_size": 256},
        ],
        "measure": {"runs": 5, "batch_sizes": [1]},
    }


def lenet_and_digits(folder: Path) -> tuple[bytes, bytes]:
    """A barely trained LeNet-5 and the digits it learns from."""
    model = write_trained(folder / "lenet.pt", epochs=1)
    return model.read_bytes(), write_digits(folder / "digits.safetensors").read_bytes()
