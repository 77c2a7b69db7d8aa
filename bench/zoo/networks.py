"""The architectures of the zoo, by collection; built from their libraries with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        build: makes the module.
        inputs: example arguments for a batch size.
    """

    collection: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], list[Tensor]]


def find(collection: str, name: str) -> Network:
    """One architecture by name."""
    return _COLLECTIONS[collection](name)


def images(side: int, channels: int = 3) -> Callable[[int], list[Tensor]]:
    """Batches of images, the same for the same batch size."""

    def batch(size: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(size)
        return [torch.randn(size, channels, side, side, generator=generator)]

    return batch


def videos(side: int, frames: int) -> Callable[[int], list[Tensor]]:
    """Batches of clips."""

    def batch(size: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(size)
        return [torch.randn(size, 3, frames, side, side, generator=generator)]

    return batch


def image_pairs(side: int) -> Callable[[int], list[Tensor]]:
    """Two images each, for optical flow."""

    def batch(size: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(size)
        return [torch.randn(size, 3, side, side, generator=generator) for _ in range(2)]

    return batch


_FULL_SIZE = ("vit_", "swin", "maxvit")
"""Position embeddings, windows or partitions bind these to 224 pixels."""
_VIDEO = {"r3d_18": (64, 8), "mc3_18": (64, 8), "r2plus1d_18": (64, 8), "s3d": (224, 16)}


def _torchvision(name: str) -> Network:
    from bench.zoo.torchvision_operators import declare  # noqa: PLC0415

    declare()
    from torchvision import models  # noqa: PLC0415

    if name.startswith(("fcn_", "deeplab", "lraspp")):
        module = models.segmentation
        options = {"weights": None, "weights_backbone": None}
        inputs = images(96)
    elif name in _VIDEO:
        module, options, inputs = models.video, {"weights": None}, videos(*_VIDEO[name])
    elif name.startswith(("mvit", "swin3d")):
        module, options, inputs = models.video, {"weights": None}, videos(224, 16)
    elif name.startswith("raft"):
        module, options, inputs = models.optical_flow, {"weights": None}, image_pairs(128)
    else:
        module, options = models, {"weights": None}
        side = 224 if name.startswith(_FULL_SIZE) else 96
        inputs = images(side)
        if name in {"googlenet", "inception_v3"}:
            options |= {"init_weights": False}
    return Network("torchvision", name, lambda: getattr(module, name)(**options), inputs)


def _timm(name: str) -> Network:
    from bench.zoo.torchvision_operators import declare  # noqa: PLC0415

    declare()
    import timm  # noqa: PLC0415

    size = timm.models.get_pretrained_cfg(name).input_size
    return Network("timm", name, lambda: timm.create_model(name, pretrained=False), images(size[1]))


def _transformers(name: str) -> Network:
    from bench.zoo.language import language  # noqa: PLC0415

    build, inputs = language(name)
    return Network("transformers", name, build, inputs)


_COLLECTIONS: dict[str, Callable[[str], Network]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
}
