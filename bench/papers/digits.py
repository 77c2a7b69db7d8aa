"""scikit-learn's digits (1,797 real scans of 8x8 pixels) in three fixed parts.

    train        1,078   what networks and masks are trained on
    validation     179   what settings of the benchmark were chosen on
    test           540   what the figures are of; no training and no choice sees it

The parts are stratified and the same for every seed: seeds change initial weights, orders and
whatever a recipe draws, so that runs of one seed can be compared in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import interpolate

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """Images `[samples, 1, size, size]`, float32 in [0, 1], and their digits `[samples]`, int64."""

    images: Tensor
    digits: Tensor

    def first(self, samples: int) -> Split:
        """Only so many samples."""
        return Split(self.images[:samples].clone(), self.digits[:samples].clone())


@cache
def load_splits(size: int = 8) -> dict[Part, Split]:
    """The parts, with images upscaled bilinearly where `size` is not 8."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    if size != images.shape[-1]:
        images = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    digits = torch.from_numpy(bunch.target).long()
    train, rest = train_test_split(
        range(len(digits)), test_size=0.4, stratify=digits, random_state=0
    )
    validation, test = train_test_split(rest, test_size=0.75, stratify=digits[rest], random_state=0)
    rows: dict[Part, list[int]] = {"train": train, "validation": validation, "test": test}
    return {part: Split(images[of].contiguous(), digits[of]) for part, of in rows.items()}
