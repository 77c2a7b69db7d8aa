"""Regression on generated signals: what an oscillation is made of, by a small convolutional net.

A signal of 64 points in noise of deviation s,

    x(t) = a exp(-d t) sin(2 pi f t + p) + s n(t),    t = 0, 1/64 .. 63/64

with a in [0.5, 2], d in [0, 4], f in [2, 10] and p in [0, 2 pi], each drawn evenly. The targets
are a, d and f, each shifted and scaled to mean 0 and deviation 1; the phase p has to be seen past.
"""

from __future__ import annotations

from functools import cache
from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from bench.recovery.task import Figures, Measure, Part, Samples, Task, Training

POINTS = 64
SIZES: dict[Part, int] = {"train": 3000, "validation": 500, "test": 1000}
_LOW = torch.tensor([0.5, 0.0, 2.0])
_HIGH = torch.tensor([2.0, 4.0, 10.0])
_NOISE = 0.05


def draw(samples: int, seed: int) -> Samples:
    """Signals `[samples, 1, 64]` and amplitude, damping and frequency `[samples, 3]`, float32."""
    lot = torch.Generator().manual_seed(seed)
    even = torch.rand(samples, 3, generator=lot)
    phase = 2 * pi * torch.rand(samples, 1, generator=lot)
    amplitude, damping, frequency = (_LOW + (_HIGH - _LOW) * even).split(1, dim=1)
    time = torch.arange(POINTS) / POINTS
    signals = amplitude * torch.exp(-damping * time)
    signals = signals * torch.sin(2 * pi * frequency * time + phase)
    signals = signals + _NOISE * torch.randn(samples, POINTS, generator=lot)
    # An even draw from [0, 1] has mean 1/2 and variance 1/12.
    return Samples(signals.unsqueeze(1), (even - 0.5) * sqrt(12))


@cache
def parts() -> dict[Part, Samples]:
    """The same signals for every seed of the benchmark."""
    return {name: draw(size, seed) for seed, (name, size) in enumerate(SIZES.items())}


class SignalNet(nn.Module):
    """Three convolutions along time and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 32, 7, 2, padding=3),
            nn.ReLU(),
            nn.Conv1d(32, 48, 5, 2, padding=2),
            nn.ReLU(),
            nn.Conv1d(48, 64, 5, 2, padding=2),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(64 * POINTS // 8, 64)
        self.values = nn.Linear(64, 3)

    def forward(self, signals: Tensor) -> Tensor:
        """Three values `[samples, 3]` of signals `[samples, 1, 64]`."""
        values: Tensor = self.values(torch.relu(self.hidden(self.features(signals).flatten(1))))
        return values


def judge(outputs: Tensor, targets: Tensor) -> Figures:
    """Mean squared error, and the share of the targets' variance that is explained.

    R2 = 1 - sum (y - t)^2 / sum (t - mean t)^2, the mean over the three values.
    """
    left = (outputs - targets).double().square().sum(0)
    whole = (targets - targets.mean(0)).double().square().sum(0)
    return {"loss": float(mse_loss(outputs, targets)), "r2": float((1 - left / whole).mean())}


TASK = Task(
    name="regression",
    title="Regression, convolutions along time",
    words="Amplitude, damping and frequency of a noisy oscillation of 64 points; 3,000 generated "
    "signals to train on. Three convolutions of 32, 48 and 64 channels and two linear layers.",
    build=SignalNet,
    parts=parts,
    loss=mse_loss,
    judge=judge,
    measure=Measure("r2", "R², %", "percent", share="r2"),
    dense=Training(25, 3e-3, 64),
    recovery=Training(6, 3e-3, 64),
    objective={"loss": "mse"},
    distillation={"kind": "mse"},
)
