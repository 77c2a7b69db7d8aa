"""Indices packed in bytes, as models store them, taken apart and put together again.

The layout is that of `engine.quantisation.index_packing`: an index of `width` bits in pieces of 8,
4, 2 and 1 bits as `width` is written in binary, the piece of the lowest bits first, and pieces of
one width together, lowest bits of a byte first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def packed_bytes(count: int, width: int) -> int:
    """Bytes that so many indices take."""
    return sum(-(-count * piece // 8) for piece in _pieces(width))


def pack(indices: Bytes, width: int) -> Bytes:
    """From `[count]` indices below 2^width to their bytes."""
    done, parts = 0, [np.empty(0, np.uint8)]
    for piece in _pieces(width):
        low = indices >> done & ((1 << piece) - 1)
        padded = np.zeros((-(-len(indices) * piece // 8), 8 // piece), np.uint8)
        padded.reshape(-1)[: len(indices)] = low
        parts.append((padded << _shifts(piece)).sum(1, dtype=np.uint8))
        done += piece
    return np.concatenate(parts)


def unpack(packed: Bytes, count: int, width: int) -> Bytes:
    """The inverse of `pack`."""
    start, done = 0, 0
    indices = np.zeros(count, np.uint8)
    for piece in _pieces(width):
        end = start + -(-count * piece // 8)
        part = packed[start:end, None] >> _shifts(piece) & ((1 << piece) - 1)
        indices |= part.reshape(-1)[:count] << done
        start, done = end, done + piece
    return indices


def _pieces(width: int) -> list[int]:
    if not 1 <= width <= 8:
        raise ValueError(f"indices of {width} bits")
    return [piece for piece in (8, 4, 2, 1) if width & piece]


def _shifts(piece: int) -> Bytes:
    return np.arange(0, 8, piece, dtype=np.uint8)
