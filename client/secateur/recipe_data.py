"""The recipe's `data`: how the samples of a dataset become what the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from secateur.recipe_base import RecipeModel

Extent = Annotated[int, Field(ge=1, le=65536)]
Size = Annotated[list[Extent], Field(min_length=2, max_length=2)]
Key = Annotated[
    str,
    Field(pattern=r"^(targets/)?[A-Za-z_0-9.]+(/[^/\x00-\x1f]+){0,4}$", max_length=300),
]


class ToFloat(RecipeModel):
    """Numbers in a float type; bytes (uint8) are divided by 255 first."""

    kind: Literal["to_float"]
    dtype: Literal["float32", "float64", "float16", "bfloat16"] = "float32"


class Normalize(RecipeModel):
    """Subtract a mean and divide by a deviation, channel by channel (dimension 1)."""

    kind: Literal["normalize"]
    mean: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=1, max_length=4096)
    """One number for every channel, or one for all."""
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, max_length=4096
    )
    """The same."""

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"`mean` has {len(self.mean)} numbers and `std` has {len(self.std)}; give as many"
            )
        return self


class Resize(RecipeModel):
    """Scale images to a size: bilinear, over all pixels that a smaller one stands for."""

    kind: Literal["resize"]
    size: Size
    """Height and width."""


class CenterCrop(RecipeModel):
    """Cut out the middle."""

    kind: Literal["center_crop"]
    size: Size
    """Height and width."""


class RandomCrop(RecipeModel):
    """Cut out a place that is drawn for every sample; outside of training, the middle."""

    kind: Literal["random_crop"]
    size: Size
    """Height and width."""
    padding: Annotated[int, Field(ge=0, le=4096)] = 0
    """Zeros on every side first."""


class Flip(RecipeModel):
    """Mirror a sample, by a coin for every sample; outside of training, none."""

    kind: Literal["flip"]
    axis: Literal["horizontal", "vertical"] = "horizontal"
    """`horizontal` swaps left and right."""
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability."""


Transform = Annotated[
    ToFloat | Normalize | Resize | CenterCrop | RandomCrop | Flip, Field(discriminator="kind")
]
GEOMETRIC = (Resize, CenterCrop, RandomCrop, Flip)
"""They move values to other places, and must move those of the targets with them."""


class Tokens(RecipeModel):
    """Windows of a token stream (`train/tokens`): inputs, and as targets the token after each."""

    window: Annotated[int, Field(ge=1, le=2**20)]
    """Tokens of a sample."""
    stride: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """Tokens from one window's begin to the next; as long as the window when left out."""
    vocabulary: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """Tokens must be below it; what the model scores when left out."""


class Images(RecipeModel):
    """How image files are decoded."""

    channels: Literal["as_stored", "gray", "rgb"] = "as_stored"
    """`gray` makes one channel of any image and `rgb` three; otherwise all must have as many."""


class Data(RecipeModel):
    """How the samples of a dataset become what the model takes."""

    # YAML reads `{0: ...}` as a number; JSON has no such keys.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    transforms: dict[Key, Annotated[list[Transform], Field(min_length=1, max_length=16)]] = Field(
        default={}, max_length=32
    )
    """What happens to every sample, in order, by the position or name of the argument (`0`,
    `image`, `0/mask` for a nested one) or by target (`targets/0`, where it is an image too)."""
    images: Images = Images()
    """Image files: which channels they get."""
    columns: dict[
        Annotated[str, Field(pattern=r"^(inputs|targets)/[A-Za-z_0-9.]+(/[^/\x00-\x1f]+){0,4}$")],
        Annotated[str, Field(min_length=1, max_length=200)],
    ] = Field(default={}, max_length=256)
    """Parquet, Arrow and WebDataset: which column (or extension) is which input or target, such as
    `{inputs/0: pixels, targets/0: label}`; otherwise they are named so themselves."""
    tokens: Tokens | None = None
    """Token streams: how windows are cut."""

    @field_validator("transforms")
    @classmethod
    def _targets_are_only_moved(cls, transforms: dict[str, list[Transform]]) -> object:
        for key, chain in transforms.items():
            for index, transform in enumerate(chain):
                if key.startswith("targets/") and not isinstance(transform, GEOMETRIC):
                    raise ValueError(
                        f"`{key}.{index}` is {transform.kind}; targets are only moved along with "
                        "the inputs: resize, center_crop, random_crop, flip"
                    )
        return transforms


class Unfitting(ValueError):
    """A transform does not fit the shape it meets.

    Attributes:
        index: of the transform in its chain.
    """

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def transformed_shape(chain: Sequence[Transform], shape: Sequence[int | None]) -> list[int | None]:
    """The shape of samples after their transforms; None stands for sizes that differ.

    Args:
        chain: of one input or target.
        shape: samples first: [n, channels, height, width], or [n, height, width] of a target.

    Raises:
        Unfitting: a transform does not fit; names it by its index.
    """
    found = list(shape)
    for index, transform in enumerate(chain):
        if isinstance(transform, ToFloat):
            continue
        if isinstance(transform, Normalize):
            if len(found) < 2:
                raise Unfitting(index, f"normalize needs channels, and the shape is {_told(found)}")
            if len(transform.mean) not in (1, found[1]):
                raise Unfitting(
                    index,
                    f"normalize has {len(transform.mean)} means, and {found[1]} channels are there "
                    f"(shape {_told(found)})",
                )
            continue
        if len(found) < 3:
            raise Unfitting(
                index, f"{transform.kind} takes images, and the shape is {_told(found)}"
            )
        if isinstance(transform, Resize):
            found[-2:] = transform.size
        elif isinstance(transform, CenterCrop | RandomCrop):
            padding = transform.padding if isinstance(transform, RandomCrop) else 0
            for have, want in zip(found[-2:], transform.size, strict=True):
                if have is not None and have + 2 * padding < want:
                    raise Unfitting(
                        index,
                        f"{transform.kind} cuts {_told(transform.size)} out of {_told(found[-2:])}"
                        + (f" with {padding} zeros on every side" if padding else ""),
                    )
            found[-2:] = transform.size
    return found


def _told(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
