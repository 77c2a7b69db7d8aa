"""Ways to write the content of a record in few bytes, each with its inverse.

    plain       a few bytes, as they are, in the head.
    zstd        any bytes.
    indices     packed indices of 1 to 8 bits: taken apart, then each by its frequency (`rans`).
    words       numbers of 1, 2, 4 or 8 bytes of which few are distinct, as shared weights or
                pruned ones are: a palette, and for each number its place in it by frequency. The
                last place may stand for numbers that are not in the palette, which follow.
    shuffled    numbers of 2, 4 or 8 bytes, their first bytes, their second bytes and so on, by
                zstd: exponents are alike where numbers are not.

A coded record is parameters (whole numbers), a head (bytes that describe symbols, stored together
for all records) and bodies (bytes stored one after another).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import zstandard
from numpy.typing import NDArray

from secateur.archive import indices, rans

WORDS = (1, 2, 4, 8)
"""Bytes of a number."""
_SLOW_BYTES = 1 << 17
_PALETTE = 256
_SAMPLE = 1 << 15
_WINDOW_BYTES = 1 << 27
_UNSIGNED = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


class NotThisCoder(Exception):
    """A coder gains nothing here."""


@dataclass(frozen=True)
class Coded:
    """A record in few bytes."""

    coder: str
    parameters: tuple[int, ...]
    head: bytes
    bodies: tuple[bytes, ...]

    @property
    def cost(self) -> int:
        """Bytes it takes, roughly with what says so."""
        return len(self.head) + sum(len(body) + 3 for body in self.bodies)


def compress(data: bytes, *, text: bool = False) -> bytes:
    """By zstd, hard where that is quick; the frame says how many bytes it holds.

    Args:
        data: any bytes.
        text: code and names of a program, which much of what torch writes has in common with.
    """
    level = 19 if text or len(data) <= _SLOW_BYTES else 6
    common = _common() if text else None
    return zstandard.ZstdCompressor(level=level, write_checksum=False, dict_data=common).compress(
        data
    )


def decompress(data: bytes, size: int, *, text: bool = False) -> bytes:
    """The inverse.

    Raises:
        ValueError: it is damaged, or holds another number of bytes than it should.
    """
    try:
        # The decoder allocates what the frame claims, so the claim is looked at first.
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != size:
            raise ValueError(f"a frame of {frame.content_size} bytes where {size} belong")
        decoder = zstandard.ZstdDecompressor(
            max_window_size=_WINDOW_BYTES, dict_data=_common() if text else None
        )
        return decoder.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


@cache
def _common() -> zstandard.ZstdCompressionDict:
    """What TorchScript files have in common; no archive can be read without these very bytes."""
    data = files("secateur.archive").joinpath("common.bin").read_bytes()
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def encode_plain(content: bytes) -> Coded:
    """A few bytes."""
    return Coded("plain", (), content, ())


def _decode_plain(coded: Coded, size: int) -> bytes:
    if len(coded.head) != size:
        raise ValueError("content of another size")
    return coded.head


def encode_zstd(content: bytes) -> Coded:
    """Any bytes."""
    return Coded("zstd", (), b"", (compress(content),))


def _decode_zstd(coded: Coded, size: int) -> bytes:
    (body,) = coded.bodies
    return decompress(body, size)


def encode_indices(content: bytes, count: int, width: int) -> Coded:
    """Packed indices.

    Raises:
        NotThisCoder: the content is not so many indices of that width.
    """
    if len(content) != indices.packed_bytes(count, width):
        raise NotThisCoder
    packed = np.frombuffer(content, np.uint8)
    symbols = indices.unpack(packed, count, width)
    if not count or not np.array_equal(indices.pack(symbols, width), packed):
        raise NotThisCoder
    rate = rans.rates(np.bincount(symbols))
    return Coded("indices", (count, width, len(rate)), rate, (rans.encode(symbols, rate),))


def _decode_indices(coded: Coded, size: int) -> bytes:
    count, width, kinds = coded.parameters
    (body,) = coded.bodies
    if indices.packed_bytes(count, width) != size or kinds != len(coded.head) or kinds > 1 << width:
        raise ValueError("indices that do not fill their record")
    return indices.pack(rans.decode(body, count, coded.head), width).tobytes()


def encode_words(content: bytes, word: int) -> Coded:
    """Numbers of which few are distinct.

    Raises:
        NotThisCoder: hardly any number comes often.
    """
    numbers = _numbers(content, word)
    if _distinct(numbers[:: len(numbers) // _SAMPLE + 1]) > _SAMPLE * 3 // 4:
        raise NotThisCoder
    values, counts = np.unique(numbers, return_counts=True)
    others = len(values) > _PALETTE
    if others:
        # A place in the palette pays from the third time on.
        common = np.sort(np.argsort(-counts, kind="stable")[: _PALETTE - 1])
        values = values[common[counts[common] > 2]]
        if not len(values):
            raise NotThisCoder
    places = np.searchsorted(values, numbers)
    missing = np.zeros(len(numbers), bool)
    if others:
        places = np.minimum(places, len(values) - 1)
        missing = values[places] != numbers
        places[missing] = len(values)
    symbols = places.astype(np.uint8)
    rate = rans.rates(np.bincount(symbols, minlength=len(values) + others))
    bodies = [rans.encode(symbols, rate)]
    if others:
        bodies.append(compress(_shuffled(numbers[missing].tobytes(), word)))
    head = rate + _shuffled(values.tobytes(), word)
    parameters = (word, len(values), int(missing.sum()))
    return Coded("words", parameters, head, tuple(bodies))


def _decode_words(coded: Coded, size: int) -> bytes:
    word, palette, missing = coded.parameters
    others = len(coded.bodies) == 2
    symbols_used = palette + others
    if word not in WORDS or size % word or len(coded.head) != symbols_used + palette * word:
        raise ValueError("a palette of another size")
    values = np.frombuffer(_unshuffled(coded.head[symbols_used:], word), _UNSIGNED[word])
    symbols = rans.decode(coded.bodies[0], size // word, coded.head[:symbols_used])
    known = symbols < palette
    if len(known) - int(known.sum()) != missing:
        raise ValueError("a palette that other numbers are missing from")
    numbers = np.empty(len(symbols), _UNSIGNED[word])
    numbers[known] = values[symbols[known]]
    if others:
        rest = decompress(coded.bodies[1], missing * word)
        numbers[~known] = np.frombuffer(_unshuffled(rest, word), _UNSIGNED[word])
    return numbers.tobytes()


def encode_shuffled(content: bytes, word: int) -> Coded:
    """Numbers by their bytes."""
    _numbers(content, word)
    return Coded("shuffled", (word,), b"", (compress(_shuffled(content, word)),))


def _decode_shuffled(coded: Coded, size: int) -> bytes:
    (word,) = coded.parameters
    (body,) = coded.bodies
    if word not in WORDS or size % word:
        raise ValueError("numbers that do not fill their record")
    return _unshuffled(decompress(body, size), word)


_DECODERS: Mapping[str, Callable[[Coded, int], bytes]] = {
    "plain": _decode_plain,
    "zstd": _decode_zstd,
    "indices": _decode_indices,
    "words": _decode_words,
    "shuffled": _decode_shuffled,
}


def decode(coded: Coded, size: int) -> bytes:
    """The content of a record.

    Args:
        coded: as it was stored.
        size: bytes that it must have.

    Raises:
        ValueError: it is damaged.
    """
    decoder = _DECODERS.get(coded.coder)
    if decoder is None:
        raise ValueError(f"no coder is called {coded.coder!r}")
    content = decoder(coded, size)
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes where {size} belong")
    return content


def _numbers(content: bytes, word: int) -> NDArray[np.unsignedinteger]:
    if not content or len(content) % word:
        raise NotThisCoder
    return np.frombuffer(content, _UNSIGNED[word])


def _distinct(numbers: NDArray[np.unsignedinteger]) -> int:
    return len(np.unique(numbers))


def _shuffled(content: bytes, word: int) -> bytes:
    return np.frombuffer(content, np.uint8).reshape(-1, word).T.tobytes()


def _unshuffled(content: bytes, word: int) -> bytes:
    return np.frombuffer(content, np.uint8).reshape(word, -1).T.tobytes()
