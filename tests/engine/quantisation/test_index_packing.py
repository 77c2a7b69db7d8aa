"""Numbers in 1 to 8 bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.quantisation.index_packing import (
    WIDTHS,
    pack,
    packed_bytes,
    pieces,
    unpack,
    unpack_source,
    width_for,
)


def _scripted(packed: Tensor, count: int, width: int) -> Tensor:
    lines = unpack_source(count, width, packed="packed", numbers="numbers")
    unit = torch.jit.CompilationUnit(
        f"def unpack(packed: Tensor) -> Tensor:\n{lines}    return numbers\n"
    )
    return unit.unpack(packed)


def _bits(*written: str) -> Tensor:
    return torch.tensor([int(byte.replace(" ", ""), 2) for byte in written], dtype=torch.uint8)


HAND = [
    (1, [1, 0, 0, 1, 1, 0, 0, 0, 1], ("0001 1001", "0000 0001")),
    (2, [3, 0, 1, 2, 1], ("10 01 00 11", "01")),
    (3, [5, 1, 6], ("10 01 01", "101")),
    (4, [10, 3, 7], ("0011 1010", "0111")),
    # 5 bits are 4 low ones and the high one
    (5, [0b1_0110, 0b0_1111, 0b1_0000], ("1111 0110", "0000", "101")),
    # 7 are 4 + 2 + 1
    (7, [0b1_01_0011, 0b0_10_1100], ("1100 0011", "10 01", "0 1")),
    (8, [255, 0, 17], ("1111 1111", "0", "10001")),
]


@pytest.mark.parametrize(("width", "numbers", "written"), HAND)
def test_bytes_by_hand(width: int, numbers: list[int], written: tuple[str, ...]) -> None:
    packed = pack(torch.tensor(numbers, dtype=torch.uint8), width)

    torch.testing.assert_close(packed, _bits(*written))
    assert unpack(packed, len(numbers), width).tolist() == numbers


@given(
    width=st.sampled_from(WIDTHS),
    count=st.integers(0, 70),
    seed=st.integers(0, 2**31),
)
def test_numbers_come_back(width: int, count: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 1 << width, (count,), dtype=torch.uint8, generator=draw)

    packed = pack(numbers, width)

    assert packed.dtype == torch.uint8
    assert len(packed) == packed_bytes(count, width)
    assert len(packed) <= -(-count * width // 8) + len(pieces(width)) - 1
    assert torch.equal(unpack(packed, count, width), numbers)


@settings(max_examples=30)
@given(width=st.sampled_from(WIDTHS), count=st.integers(0, 20))
def test_torchscript_unpacks_the_same(width: int, count: int) -> None:
    numbers = torch.randint(0, 1 << width, (count,), dtype=torch.uint8)

    assert torch.equal(_scripted(pack(numbers, width), count, width), numbers)


def test_width_is_the_logarithm_rounded_up() -> None:
    widths = [width_for(entries) for entries in (1, 2, 3, 4, 5, 16, 17, 128, 129, 256)]

    assert widths == [1, 1, 2, 2, 3, 4, 5, 7, 8, 8]


@pytest.mark.parametrize("entries", [0, 257])
def test_indices_have_at_most_eight_bits(entries: int) -> None:
    with pytest.raises(ValueError, match="1 to 256"):
        width_for(entries)


@pytest.mark.parametrize("width", [0, 9])
def test_a_width_beyond_a_byte_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        pieces(width)
