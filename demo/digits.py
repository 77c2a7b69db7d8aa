"""scikit-learn's bundled digits (1,797 real scans of 8x8 pixels) as LeNet-5 wants them.

Three splits that share no sample: the model is trained and fine-tuned on `train` alone; the
report measures on `validation`; `test` stays on this machine and is used once, at the end.
Nothing is chosen by looking at `validation`: epochs are fixed and the recipe keeps the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import interpolate

SIZE = 32


@dataclass(frozen=True)
class Split:
    """Images `[samples, 1, 32, 32]`, float32 in [0, 1], and their digits `[samples]`, int64."""

    images: Tensor
    digits: Tensor


def load_splits(seed: int = 0) -> dict[str, Split]:
    """The digits as `train` (60 %), `validation` (20 %) and `test` (20 %), stratified."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    images = interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    digits = torch.from_numpy(bunch.target).long()
    train, rest = train_test_split(
        range(len(digits)), test_size=0.4, stratify=digits, random_state=seed
    )
    validation, test = train_test_split(
        rest, test_size=0.5, stratify=digits[rest], random_state=seed
    )
    parts = {"train": train, "validation": validation, "test": test}
    return {name: Split(images[rows].contiguous(), digits[rows]) for name, rows in parts.items()}
