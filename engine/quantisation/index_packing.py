"""Small whole numbers packed into bytes, by stock operators that also unpack them in a graph.

A number of `width` bits is cut into pieces whose widths are powers of two, as `width` is written in
binary: 7 bits are 4 + 2 + 1, 6 are 4 + 2, and 1, 2, 4 and 8 stay whole. Pieces of one width lie
together and fill their bytes, lowest bits first, so unpacking is one shift and one mask for each
width and needs no larger type than bytes:

    width 3, numbers 5 1 6 = 101 001 110
    pieces of 2 bits, the low ones     01 01 10     one byte    00 10 01 01
    pieces of 1 bit, the high ones     1  0  1      one byte    00000 1 0 1

`count` numbers take `ceil(count p / 8)` bytes for each piece of p bits: at most a byte a piece more
than the numbers' own bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDTHS = range(1, 9)
"""Bits that a number may have."""


def width_for(entries: int) -> int:
    """Bits that tell so many entries apart; at least one.

    Raises:
        ValueError: not between 1 and 256 entries.
    """
    if not 1 <= entries <= 256:
        raise ValueError(f"{entries} entries: indices have 1 to 8 bits, so 1 to 256")
    return max((entries - 1).bit_length(), 1)


def pieces(width: int) -> list[int]:
    """Widths of the pieces of a number, those of its lowest bits first.

    Raises:
        ValueError: no width from 1 to 8.
    """
    if width not in WIDTHS:
        raise ValueError(f"a width of {width} bits: indices have 1 to 8")
    return [piece for piece in (8, 4, 2, 1) if width & piece]


def packed_bytes(count: int, width: int) -> int:
    """Bytes that so many numbers take."""
    return sum(_bytes_of(count, piece) for piece in pieces(width))


def pack(numbers: Tensor, width: int) -> Tensor:
    """Pack numbers.

    Args:
        numbers: `[count]`, uint8, each below `2 ** width`.
        width: bits of a number.

    Returns:
        Bytes `[packed_bytes(count, width)]`, uint8, on the same device.
    """
    count, done, parts = len(numbers), 0, []
    for piece in pieces(width):
        low = numbers.bitwise_right_shift(done).bitwise_and((1 << piece) - 1)
        per_byte = 8 // piece
        padded = low.new_zeros(_bytes_of(count, piece) * per_byte)
        padded[:count] = low
        shifts = _shifts(piece, numbers.device)
        # Pieces of a byte share no bit, so their sum is their union.
        parts.append(padded.view(-1, per_byte).bitwise_left_shift(shifts).sum(1, dtype=torch.uint8))
        done += piece
    return torch.cat(parts)


def unpack(packed: Tensor, count: int, width: int) -> Tensor:
    """The inverse of `pack`: `[count]`, uint8."""
    start, done = 0, 0
    numbers = packed.new_zeros(0)
    for piece in pieces(width):
        length = _bytes_of(count, piece)
        part = packed.narrow(0, start, length)
        if piece < 8:
            shifted = part.unsqueeze(1).bitwise_right_shift(_shifts(piece, packed.device))
            part = shifted.bitwise_and((1 << piece) - 1).flatten().narrow(0, 0, count)
        numbers = numbers.bitwise_or(part.bitwise_left_shift(done)) if done else part
        start, done = start + length, done + piece
    return numbers


def unpack_source(count: int, width: int, *, packed: str, numbers: str) -> str:
    """Lines of TorchScript that do what `unpack` does, with every size written in.

    Args:
        count: how many numbers.
        width: bits of each.
        packed: name of the bytes, which the lines read.
        numbers: name that the lines give to the numbers, uint8 `[count]`.
    """
    lines, start, done = [], 0, 0
    for piece in pieces(width):
        length = _bytes_of(count, piece)
        part = f"{packed}.narrow(0, {start}, {length})"
        if piece < 8:
            shifts = f"torch.arange(0, 8, {piece}, dtype=torch.uint8, device={packed}.device)"
            part = (
                f"torch.bitwise_right_shift({part}.unsqueeze(1), {shifts})"
                f".bitwise_and({(1 << piece) - 1}).flatten().narrow(0, 0, {count})"
            )
        if done:
            part = f"torch.bitwise_or({numbers}, torch.bitwise_left_shift({part}, {done}))"
        lines.append(f"    {numbers} = {part}\n")
        start, done = start + length, done + piece
    return "".join(lines)


def _bytes_of(count: int, piece: int) -> int:
    return -(-count * piece // 8)


def _shifts(piece: int, device: torch.device) -> Tensor:
    return torch.arange(0, 8, piece, dtype=torch.uint8, device=device)
