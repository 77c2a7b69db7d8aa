"""Size and channels of an image file, from its first bytes; nothing is decoded.

PNG: ISO/IEC 15948, chunk IHDR. JPEG: ITU-T T.81, B.2.2, the frame header after any number of other
segments.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

from secateur.data_files.faults import DataFault
from secateur.data_files.image_folder import MAX_PIXELS

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS_OF_COLOUR = {0: 1, 2: 3}
_MAX_SEGMENTS = 256
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_REPLACE = "Replace or remove the file, and pack the dataset again."


@dataclass(frozen=True)
class ImageHeader:
    """What an image file announces; `channels` is None where it is neither gray nor RGB."""

    width: int
    height: int
    channels: int | None


def read_image_header(file: IO[bytes], name: str) -> ImageHeader:
    """Read as much of the file as tells its size.

    Args:
        file: at its first byte.
        name: of the file, for errors.

    Raises:
        DataFault: it is no PNG or JPEG of eight bits a channel, or has too many pixels.
    """
    start = file.read(2)
    try:
        if start == _PNG[:2]:
            header = _png(file, name)
        elif start == b"\xff\xd8":
            header = _jpeg(file, name)
        else:
            raise DataFault(f"`{name}` is no PNG or JPEG image.", hint=_REPLACE, where=name)
    except struct.error as error:
        raise DataFault(f"`{name}` was cut off.", hint=_REPLACE, where=name) from error
    if not header.width or not header.height:
        raise DataFault(f"`{name}` has no pixels.", hint=_REPLACE, where=name)
    if header.width * header.height > MAX_PIXELS:
        raise DataFault(
            f"`{name}` has {header.width} x {header.height} pixels; at most {MAX_PIXELS} are "
            "decoded.",
            hint="Scale the image down before it is packed.",
            where=name,
        )
    return header


def _png(file: IO[bytes], name: str) -> ImageHeader:
    rest, length, kind, width, height, depth, colour = struct.unpack(
        ">6sI4sIIBB", file.read(6 + 4 + 4 + 10)
    )
    if rest != _PNG[2:] or kind != b"IHDR" or length != 13:
        raise DataFault(f"`{name}` is a damaged PNG image.", hint=_REPLACE, where=name)
    _check_depth(depth, name)
    return ImageHeader(width, height, _CHANNELS_OF_COLOUR.get(colour) if depth == 8 else None)


def _jpeg(file: IO[bytes], name: str) -> ImageHeader:
    for _ in range(_MAX_SEGMENTS):
        mark, kind = struct.unpack(">BB", file.read(2))
        while kind == 0xFF:  # fill bytes
            (kind,) = struct.unpack(">B", file.read(1))
        if mark != 0xFF or kind in (0xD8, 0xD9, 0xDA):
            break
        (length,) = struct.unpack(">H", file.read(2))
        segment = file.read(max(length - 2, 0))
        if kind in _FRAMES:
            depth, height, width, components = struct.unpack(">BHHB", segment[:6])
            _check_depth(depth, name)
            return ImageHeader(width, height, components if components in (1, 3) else None)
    raise DataFault(f"`{name}` is a damaged JPEG image.", hint=_REPLACE, where=name)


def _check_depth(depth: int, name: str) -> None:
    if depth > 8:
        raise DataFault(
            f"`{name}` has {depth} bits a channel; eight are read.",
            hint="Save it with eight bits a channel, or store its pixels as an array.",
            where=name,
        )
