"""VGG with batch normalisation (Simonyan & Zisserman 2015; Ioffe & Szegedy 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG_DIGITS = (32, 32, "M", 64, 64, "M")


class VGG(nn.Module):
    """3x3 convolutions by a plan of widths and `M` for pooling, then a fully connected head."""

    def __init__(
        self,
        plan: Sequence[int | str],
        num_classes: int,
        in_channels: int,
        hidden: int,
        pooled: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, step, 3, padding=1), nn.BatchNorm2d(step), nn.ReLU()]
            width = step
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        self.classifier = nn.Sequential(
            nn.Linear(width * pooled * pooled, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def vgg11_bn(num_classes: int = 10, hidden: int = 512, pooled: int = 2) -> VGG:
    """Configuration A with BatchNorm; `hidden=4096, pooled=7` is the paper's ImageNet head."""
    return VGG(VGG11, num_classes, 3, hidden, pooled)


def vgg_digits(num_classes: int = 10) -> VGG:
    """A VGG small enough for one-channel digits of 8x8 pixels."""
    return VGG(VGG_DIGITS, num_classes, 1, 128, 2)
