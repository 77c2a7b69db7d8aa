"""Image files, decoded when their sample is asked for.

PNG and JPEG with eight bits a channel, by Pillow. Pixels become uint8 [channels, height, width];
what transforms make of them is `engine.data.transforms`' affair. The size that a file announces is
looked at before memory is spent on it. Orientation notes of cameras (EXIF) are not followed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from secateur.data_files.image_folder import MAX_PIXELS
from torch import Tensor

from engine.data.archive import Archive, Member
from engine.data.columns import Column
from engine.data.draws import Draw
from engine.errors import DatasetInvalid

Channels = Literal["as_stored", "gray", "rgb"]
_STORED = {"L": 1, "RGB": 3}
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_WORTH_THREADS = 4


@dataclass(frozen=True)
class ImageFiles(Column):
    """Images in an archive.

    Attributes:
        archive: they lie in.
        members: one for each sample.
        channels: what becomes of their colours.
        count: channels that every image must have.
        threads: decode side by side.
    """

    archive: Archive
    members: Sequence[Member]
    channels: Channels
    count: int
    threads: int = 1

    @property
    def are_images(self) -> bool:
        """See `Column`."""
        return True

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.members)

    @property
    def dtype(self) -> torch.dtype:
        """Of pixels."""
        return torch.uint8

    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:
        """See `Column`."""
        return torch.stack(self.take_each(rows, draw))

    def take_each(self, rows: Tensor, draw: Draw | None = None) -> list[Tensor]:  # noqa: ARG002
        """See `Column`."""
        wanted = rows.tolist()
        if self.threads < 2 or len(wanted) < _WORTH_THREADS:
            return [self._decoded(row) for row in wanted]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(self._decoded, wanted))

    def described(self, row: int) -> str:
        """See `Column`."""
        return f"`{self.members[row].name}`"

    def _decoded(self, row: int) -> Tensor:
        member = self.members[row]
        pixels = decode(self.archive.read(member), member.name, self.channels)
        if pixels.shape[0] != self.count:
            raise DatasetInvalid(
                f"`{member.name}` has {pixels.shape[0]} channels, and "
                f"`{self.members[0].name}` has {self.count}",
                hint="make them alike: `data: {images: {channels: rgb}}` or `gray` in the recipe",
                where=member.name,
            )
        return pixels


def image_files(
    archive: Archive, members: Sequence[Member], channels: Channels, *, threads: int = 1
) -> ImageFiles:
    """A column of images, which have the channels of the first.

    Raises:
        DatasetInvalid: the first cannot be decoded.
    """
    first = decode(archive.read(members[0]), members[0].name, channels)
    return ImageFiles(archive, members, channels, int(first.shape[0]), threads)


def decode(data: bytes, name: str, channels: Channels) -> Tensor:
    """The pixels of an image file, uint8 [channels, height, width].

    Args:
        data: the file.
        name: its name, for errors.
        channels: what becomes of its colours.

    Raises:
        DatasetInvalid: it is damaged, too large, or not of eight bits a channel; names it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DatasetInvalid(
                    f"`{name}` has {width} x {height} pixels; at most {MAX_PIXELS} are decoded",
                    hint="scale the image down before it is uploaded",
                    where=name,
                )
            wanted = {"gray": "L", "rgb": "RGB"}.get(channels, image.mode)
            if image.mode not in _CONVERTIBLE or wanted not in _STORED:
                raise DatasetInvalid(
                    f"`{name}` is stored as {image.mode}; gray (L) and RGB of eight bits are read "
                    "as they are",
                    hint="say `data: {images: {channels: rgb}}` in the recipe, or save the image "
                    "as 8-bit gray or RGB",
                    where=name,
                )
            array = np.array(image.convert(wanted))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetInvalid(
            f"`{name}` is not a readable PNG or JPEG image: {str(error).splitlines()[0]}",
            hint="replace or remove the file, and upload the dataset again",
            where=name,
        ) from error
    pixels = torch.from_numpy(array)
    return pixels.unsqueeze(0) if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()
