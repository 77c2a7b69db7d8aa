"""Transforms of samples, as the recipe lists them, worked out on the samples of a batch.

What is random is drawn for the sample, by (seed, purpose, epoch, place in the chain, row), see
`engine.data.draws`: neither the batch a sample falls into nor the thread that makes it changes a
bit. Chains of the same kinds at the same places therefore move an image and its mask alike. Without
a draw, outside of training, a random crop is the middle one and nothing is flipped.

Bytes (uint8) are pixels: an input with transforms is divided by 255 before the first of them.
Resizing averages over every source pixel that a target pixel covers (bilinear, antialiased), each
sample by itself. Targets are taken, not averaged: pixel i of m is that of n at
floor((i + 1/2) n / m).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from secateur.recipe_data import (
    CenterCrop,
    Flip,
    Normalize,
    RandomCrop,
    Resize,
    ToFloat,
    Transform,
    Unfitting,
    transformed_shape,
)
from torch import Tensor
from torch.nn import functional

from engine.data.columns import Column, Leaf, samples_of
from engine.data.draws import Draw
from engine.errors import DatasetInvalid

_STREAMS = 4
"""Numbers that one transform may draw for a sample."""


@dataclass(frozen=True)
class Chain:
    """The transforms of one input or target.

    Attributes:
        transforms: in order.
        field: path in the recipe, for errors.
        target: whether values are classes or quantities that are moved and never averaged.
    """

    transforms: Sequence[Transform]
    field: str
    target: bool = False

    def apply(self, samples: Tensor, rows: Tensor, draw: Draw | None) -> Tensor:
        """The samples [n, ...] transformed.

        Args:
            samples: of one shape.
            rows: their positions in the split.
            draw: of the pass; None outside of training.

        Raises:
            DatasetInvalid: a transform does not fit; names it.
        """
        if samples.dtype == torch.uint8 and not self.target:
            samples = samples.to(torch.float32) / 255
        self._check(samples)
        for index, transform in enumerate(self.transforms):
            samples = self._one(transform, index, samples, rows, draw)
        return samples

    def _check(self, samples: Tensor) -> None:
        try:
            transformed_shape(self.transforms, samples.shape)
        except Unfitting as error:
            raise DatasetInvalid(
                f"a transform does not fit the dataset: {error}",
                hint="correct the transform, or resize before it",
                where=f"{self.field}.{error.index}",
            ) from error

    def _one(
        self, transform: Transform, index: int, samples: Tensor, rows: Tensor, draw: Draw | None
    ) -> Tensor:
        stream = index * _STREAMS
        if isinstance(transform, RandomCrop):
            return _randomly_cropped(samples, transform, rows, draw, stream)
        if isinstance(transform, Flip):
            if draw is None:
                return samples
            return _flipped(samples, transform, draw.uniform(rows, stream) < transform.p)
        if isinstance(transform, CenterCrop):
            return cropped(samples, transform.size)
        return self._of_values(transform, index, samples)

    def _of_values(
        self, transform: ToFloat | Normalize | Resize, index: int, samples: Tensor
    ) -> Tensor:
        if isinstance(transform, ToFloat):
            dtype: torch.dtype = getattr(torch, transform.dtype)
            return samples.to(dtype)
        if not (self.target or samples.is_floating_point()):
            raise DatasetInvalid(
                f"{transform.kind} takes fractions, and the samples are {str(samples.dtype)[6:]}",
                hint="put `{kind: to_float}` before it",
                where=f"{self.field}.{index}",
            )
        if isinstance(transform, Resize):
            return resized(samples, transform.size, nearest=self.target)
        return _normalized(samples, transform)


@dataclass(frozen=True)
class Transformed(Column):
    """A column behind its transforms.

    Attributes:
        source: the column.
        chain: what happens to its rows.
    """

    source: Leaf
    chain: Chain

    @property
    def are_images(self) -> bool:
        """See `Column`."""
        return isinstance(self.source, Column) and self.source.are_images

    @property
    def samples(self) -> int:
        """Of the source."""
        return samples_of(self.source)

    @property
    def dtype(self) -> torch.dtype:
        """What comes out, which the first row tells."""
        return self.take(torch.tensor([0])).dtype

    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:
        """See `Column`."""
        if isinstance(self.source, Tensor):
            return self.chain.apply(self.source.index_select(0, rows), rows, draw)
        found = self.source.take_each(rows, draw)
        if all(sample.shape == found[0].shape for sample in found):
            return self.chain.apply(torch.stack(found), rows, draw)
        each = [
            self.chain.apply(sample.unsqueeze(0), rows[place : place + 1], draw)
            for place, sample in enumerate(found)
        ]
        for place, sample in enumerate(each):
            if sample.shape != each[0].shape:
                one, other = (self.source.described(int(rows[i])) for i in (0, place))
                raise DatasetInvalid(
                    f"{other} has shape {list(sample.shape[1:])}, and {one} has "
                    f"{list(each[0].shape[1:])}; samples of a batch have one shape",
                    hint="make them alike: `{kind: resize, size: [224, 224]}` in "
                    f"`{self.chain.field}`",
                    where=self.chain.field,
                )
        return torch.cat(each)

    def described(self, row: int) -> str:
        """See `Column`."""
        if isinstance(self.source, Column):
            return self.source.described(row)
        return super().described(row)


def resized(samples: Tensor, size: Sequence[int], *, nearest: bool = False) -> Tensor:
    """The last two dimensions at another size; the same tensor where it has that size."""
    height, width = size
    if tuple(samples.shape[-2:]) == (height, width):
        return samples
    if nearest:
        down, across = (
            ((torch.arange(new) + 0.5) * old / new).to(torch.int64)
            for new, old in zip(size, samples.shape[-2:], strict=True)
        )
        return samples.index_select(-2, down).index_select(-1, across)
    flat = samples.reshape(len(samples), -1, *samples.shape[-2:])
    wide = flat if flat.dtype == torch.float64 else flat.to(torch.float32)
    each = [
        functional.interpolate(
            wide[place : place + 1], (height, width), mode="bilinear", antialias=True
        )
        for place in range(len(wide))
    ]
    return torch.cat(each).reshape(*samples.shape[:-2], height, width).to(samples.dtype)


def cropped(samples: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of the last two dimensions; half a pixel goes up and left."""
    top, left = ((have - want) // 2 for have, want in zip(samples.shape[-2:], size, strict=True))
    return samples[..., top : top + size[0], left : left + size[1]]


def _randomly_cropped(
    samples: Tensor, transform: RandomCrop, rows: Tensor, draw: Draw | None, stream: int
) -> Tensor:
    around = transform.padding
    padded = functional.pad(samples, (around,) * 4) if around else samples
    if draw is None:
        return cropped(padded, transform.size)
    height, width = transform.size
    tops = draw.integers(rows, stream, padded.shape[-2] - height + 1).tolist()
    lefts = draw.integers(rows, stream + 1, padded.shape[-1] - width + 1).tolist()
    found = padded.new_empty((*padded.shape[:-2], height, width))
    for place, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        found[place] = padded[place, ..., top : top + height, left : left + width]
    return found


def _flipped(samples: Tensor, transform: Flip, turned: Tensor) -> Tensor:
    axis = -1 if transform.axis == "horizontal" else -2
    mirrored = samples.flip(axis)
    shape = (len(samples), *(1 for _ in samples.shape[1:]))
    return torch.where(turned.reshape(shape), mirrored, samples)


def _normalized(samples: Tensor, transform: Normalize) -> Tensor:
    wide = samples if samples.dtype == torch.float64 else samples.to(torch.float32)
    shape = (1, len(transform.mean), *(1 for _ in samples.shape[2:]))
    mean, std = (
        torch.tensor(numbers, dtype=wide.dtype).reshape(shape)
        for numbers in (transform.mean, transform.std)
    )
    return ((wide - mean) / std).to(samples.dtype)
