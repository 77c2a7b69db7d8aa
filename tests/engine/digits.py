"""scikit-learn's bundled digits as a dataset file, and a LeNet-5 trained on them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from secateur.report import Measurement
from sklearn.datasets import load_digits
from torch import Tensor, nn

from engine.pipeline.checkpoint import training_file
from tests.zoo import build


def digits() -> dict[str, Tensor]:
    """1,797 images of 8 x 8; every fifth is for validation."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    targets = torch.tensor(bunch.target, dtype=torch.int64)
    held_out = torch.arange(len(targets)) % 5 == 0
    return {
        "train/inputs/0": images[~held_out].contiguous(),
        "train/targets/0": targets[~held_out].contiguous(),
        "validation/inputs/0": images[held_out].contiguous(),
        "validation/targets/0": targets[held_out].contiguous(),
    }


def write_digits(path: Path) -> Path:
    save_file(digits(), path)
    return path


def write_trained(path: Path, name: str = "lenet5_digits", *, epochs: int = 4) -> Path:
    """Train a small model for a few seconds and script it to a file."""
    torch.manual_seed(0)
    model, data = build(name), digits()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images, targets = data["train/inputs/0"], data["train/targets/0"]
    for _ in range(epochs):
        for rows in torch.randperm(len(targets)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), targets[rows]).backward()
            optimizer.step()
    save_scripted(model.eval(), path)
    return path


def save_scripted(model: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(model), path)
    return path


class Recorder:
    """A listener that remembers, and may stop the job at its n-th checkpoint."""

    def __init__(self, *, stop_at: int | None = None, keep: Path | None = None) -> None:
        self.started: list[tuple[int, str]] = []
        self.finished: list[tuple[int, str, Measurement | None]] = []
        self.metrics: list[tuple[str, float, int, str]] = []
        self.logs: list[tuple[str, dict[str, Any]]] = []
        self.steps: list[tuple[int, int, str]] = []
        self.checkpoints = 0
        self._stop_at = stop_at
        self._keep = keep

    def stage_started(self, index: int, name: str) -> None:
        self.started.append((index, name))

    def stage_finished(self, index: int, name: str, measurement: Measurement | None) -> None:
        self.finished.append((index, name, measurement))

    def progress(self, current: int, total: int, unit: str) -> None:
        self.steps.append((current, total, unit))

    def metric(self, name: str, value: float, step: int, stage: str) -> None:
        self.metrics.append((name, value, step, stage))

    def log(self, message: str, **data: Any) -> None:
        self.logs.append((message, data))

    def checkpoint(self, path: Path, training: Path | None = None) -> None:
        self.checkpoints += 1
        if self._keep is not None:
            kept = self._keep / f"{self.checkpoints}.pt"
            kept.write_bytes(path.read_bytes())
            if training is not None:
                training_file(kept).write_bytes(training.read_bytes())
        if self.checkpoints == self._stop_at:
            raise KeyboardInterrupt
