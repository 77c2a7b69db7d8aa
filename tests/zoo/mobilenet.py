"""MobileNetV2 (Sandler et al. 2018): inverted residuals with depthwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn

# Table 2 of the paper: expansion, output width, repeats, stride of the first block.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_bn(in_width: int, out_width: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_width, out_width, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_width),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a shortcut where shapes allow."""

    def __init__(self, in_width: int, out_width: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_width * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn(in_width, hidden, 1, 1, 1))
        layers += [
            _conv_bn(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, out_width, 1, bias=False),
            nn.BatchNorm2d(out_width),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_width == out_width

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut:
            return x + self.conv(x)
        return self.conv(x)


class MobileNetV2(nn.Module):
    """Stem, the seven rows of Table 2, last convolution, pooling, classifier."""

    def __init__(self, num_classes: int, width_mult: float, in_channels: int) -> None:
        super().__init__()

        def scaled(width: int) -> int:
            return max(8, int(width * width_mult + 4) // 8 * 8)

        width = scaled(32)
        layers: list[nn.Module] = [_conv_bn(in_channels, width, 3, 2, 1)]
        for expansion, out, repeats, first_stride in BLOCKS:
            for position in range(repeats):
                stride = first_stride if position == 0 else 1
                layers.append(InvertedResidual(width, scaled(out), stride, expansion))
                width = scaled(out)
        last = scaled(1280) if width_mult > 1 else 1280
        layers.append(_conv_bn(width, last, 1, 1, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images).mean([2, 3])
        return self.classifier(x)


def mobilenet_v2(
    num_classes: int = 10, width_mult: float = 1.0, in_channels: int = 3
) -> MobileNetV2:
    """MobileNetV2; 3,504,872 parameters with 1,000 classes at width 1."""
    return MobileNetV2(num_classes, width_mult, in_channels)
