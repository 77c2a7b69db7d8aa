"""Segmentation of generated images, by a small U-Net.

An image of 32x32 pixels holds two or three shapes, each drawn over the ones before: a disc, a
square, or a field of stripes, at a place, of a size and of a brightness drawn by lot, under noise.
A pixel is of the class of the topmost shape there, or background. Stripes alternate between two
brightnesses and count whole, so that a pixel's brightness alone tells little.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from bench.recovery.task import Figures, Measure, Part, Samples, Task, Training

CLASSES = 4
"""Background, disc, square, stripes."""
SIDE = 32
SIZES: dict[Part, int] = {"train": 640, "validation": 160, "test": 320}
_NOISE = 0.35


def draw(samples: int, seed: int) -> Samples:
    """Images `[samples, 1, 32, 32]`, float32, and classes `[samples, 32, 32]`, int64."""
    lot = torch.Generator().manual_seed(seed)
    row = torch.arange(SIDE).view(-1, 1).expand(SIDE, SIDE)
    column = row.T
    images = torch.zeros(samples, SIDE, SIDE)
    classes = torch.zeros(samples, SIDE, SIDE, dtype=torch.int64)
    for image, label in zip(images, classes, strict=True):
        for _ in range(int(torch.randint(2, 4, (), generator=lot))):
            kind = int(torch.randint(1, CLASSES, (), generator=lot))
            y, x = torch.randint(6, SIDE - 6, (2,), generator=lot).tolist()
            radius = int(torch.randint(4, 9, (), generator=lot))
            bright = 0.5 + float(torch.rand((), generator=lot))
            box = ((row - y).abs() <= radius) & ((column - x).abs() <= radius)
            round_ = (row - y) ** 2 + (column - x) ** 2 <= radius**2
            inside = round_ if kind == 1 else box
            shade = bright * ((row + column) % 4 < 2) if kind == 3 else torch.tensor(bright)
            image[inside] = shade.expand(SIDE, SIDE)[inside]
            label[inside] = kind
    images += _NOISE * torch.randn(images.shape, generator=lot)
    return Samples(images.unsqueeze(1), classes)


@cache
def parts() -> dict[Part, Samples]:
    """The same images for every seed of the benchmark."""
    return {name: draw(size, seed) for seed, (name, size) in enumerate(SIZES.items())}


class _Pair(nn.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class UNet(nn.Module):
    """Down twice and up again, with what was seen on the way down beside (Ronneberger 2015)."""

    def __init__(self, base: int = 12) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.fine = _Pair(1, base)
        self.middle = _Pair(base, 2 * base)
        self.coarse = _Pair(2 * base, 4 * base)
        self.up_middle = _Pair(6 * base, 2 * base)
        self.up_fine = _Pair(3 * base, base)
        self.classifier = nn.Conv2d(base, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[samples, 4, 32, 32]` of images `[samples, 1, 32, 32]`."""
        fine = self.fine(images)
        middle = self.middle(self.pool(fine))
        x = self.coarse(self.pool(middle))
        x = interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.up_middle(torch.cat((x, middle), 1))
        x = interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.up_fine(torch.cat((x, fine), 1))
        scores: Tensor = self.classifier(x)
        return scores


def judge(outputs: Tensor, targets: Tensor) -> Figures:
    """Cross-entropy of a pixel in nats, share of right pixels, and mean IoU.

    IoU of a class: pixels that are of it and named so, over pixels that are one or the other,
    counted over all images; the mean is over the classes that occur on either side.
    """
    named = outputs.argmax(1)
    pairs = (targets * CLASSES + named).flatten().bincount(minlength=CLASSES**2)
    confusion = pairs.view(CLASSES, CLASSES).double()
    both = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - both
    return {
        "loss": float(cross_entropy(outputs, targets)),
        "accuracy": float(both.sum() / confusion.sum()),
        "mean_iou": float((both / either)[either > 0].mean()),
    }


TASK = Task(
    name="segmentation",
    title="Segmentation, U-Net",
    words="Discs, squares and stripes over one another in noise, 32x32 pixels, four classes with "
    "the background; 640 generated images to train on. A U-Net of two levels, 12 to 48 channels.",
    build=UNet,
    parts=parts,
    loss=cross_entropy,
    judge=judge,
    measure=Measure("mean_iou", "mIoU, %", "percent", share="mean_iou"),
    dense=Training(12, 4e-3, 32),
    recovery=Training(6, 4e-3, 32),
    form="traced",
    objective={"loss": "segmentation"},
)
