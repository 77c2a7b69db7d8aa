"""scikit-learn's digits: a ResNet and a VGG on 8x8 pixels, a vision transformer on 32x32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.accuracy.networks import ViT
from bench.papers.digits import load_splits
from bench.papers.small_networks import SmallResNet, SmallVGG
from bench.recovery.task import Figures, Measure, Part, Samples, Task, Training

_ACCURACY = Measure("accuracy", "accuracy, %", "percent", share="accuracy")


@cache
def parts(size: int) -> dict[Part, Samples]:
    """1,078 images to train on, 179 for validation, 540 for test, `[samples, 1, size, size]`."""
    return {name: Samples(split.images, split.digits) for name, split in load_splits(size).items()}


def judge(outputs: Tensor, targets: Tensor) -> Figures:
    """Cross-entropy in nats and share of right answers; logits `[samples, classes]`."""
    right = (outputs.argmax(1) == targets).double().mean()
    return {"loss": float(cross_entropy(outputs, targets)), "accuracy": float(right)}


def _task(
    name: str,
    title: str,
    words: str,
    build: Callable[[], nn.Module],
    size: int,
    *,
    dense: Training,
    recovery: Training,
) -> Task:
    return Task(
        name=name,
        title=title,
        words=words,
        build=build,
        parts=lambda: parts(size),
        loss=cross_entropy,
        judge=judge,
        measure=_ACCURACY,
        dense=dense,
        recovery=recovery,
    )


RESNET = _task(
    "digits_resnet",
    "Digits, ResNet",
    "A stem and three residual blocks of 16, 32 and 64 channels with BatchNorm on 8x8 pixels.",
    SmallResNet,
    8,
    dense=Training(20, 2e-3, 64),
    recovery=Training(4, 2e-3, 64),
)
VGG = _task(
    "digits_vgg",
    "Digits, VGG",
    "Four 3x3 convolutions of 32 and 64 channels with BatchNorm on 8x8 pixels, and a classifier.",
    SmallVGG,
    8,
    dense=Training(20, 2e-3, 64),
    recovery=Training(4, 2e-3, 64),
)
VIT = _task(
    "digits_vit",
    "Digits, vision transformer",
    "16 patches of images enlarged to 32x32 pixels, width 64, four heads, three encoder layers.",
    lambda: ViT(8, 64, 4, 128, 3),
    32,
    dense=Training(30, 5e-4, 32),
    recovery=Training(12, 1e-3, 32),
)
