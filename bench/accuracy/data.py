"""scikit-learn's digits, enlarged to 32 x 32 pixels and split anew for every seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bench.accuracy.networks import SIDE

TEST, VALIDATION = 360, 287
"""Of 1,797 images; the other 1,150 are for training."""


@dataclass(frozen=True)
class Part:
    """Images (n, 1, 32, 32), float32 of mean 0 and deviation 1, and classes (n,), int64."""

    images: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Splits:
    """Disjoint parts: weights see `train`, choices see `validation`, reported is `test`."""

    train: Part
    validation: Part
    test: Part


@cache
def _everything() -> Part:
    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    images = torch.nn.functional.interpolate(
        small, size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    images = (images - images.mean()) / images.std()
    return Part(images, torch.tensor(bunch.target, dtype=torch.int64))


@cache
def splits(seed: int) -> Splits:
    """The parts of one seed."""
    whole = _everything()
    order = torch.randperm(len(whole.classes), generator=torch.Generator().manual_seed(1000 + seed))
    parts = order.split([TEST, VALIDATION, len(order) - TEST - VALIDATION])
    test, validation, train = (Part(whole.images[rows], whole.classes[rows]) for rows in parts)
    return Splits(train=train, validation=validation, test=test)
