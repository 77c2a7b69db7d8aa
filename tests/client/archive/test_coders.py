"""Records in few bytes, by each coder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from secateur.archive import indices
from secateur.archive.coders import (
    WORDS,
    Coded,
    NotThisCoder,
    decode,
    decompress,
    encode_indices,
    encode_plain,
    encode_shuffled,
    encode_words,
    encode_zstd,
)

CONTENTS = st.binary(max_size=200) | st.lists(st.sampled_from([0, 0, 1, 7]), max_size=200).map(
    bytes
)


@settings(deadline=None)
@given(content=CONTENTS)
def test_what_a_coder_takes_it_gives_back(content: bytes) -> None:
    found = [encode_zstd(content), encode_plain(content)]
    for word in WORDS:
        for encode in (encode_words, encode_shuffled):
            try:
                found.append(encode(content, word))
            except NotThisCoder:
                assert encode is encode_words or not content or len(content) % word

    for coded in found:
        assert decode(coded, len(content)) == content


@settings(deadline=None)
@given(width=st.integers(1, 8), count=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_packed_indices_of_every_width(width: int, count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 1 << width, count).astype(np.uint8)
    content = indices.pack(drawn, width).tobytes()

    coded = encode_indices(content, count, width)

    assert np.array_equal(indices.unpack(np.frombuffer(content, np.uint8), count, width), drawn)
    assert decode(coded, len(content)) == content


@pytest.mark.parametrize(("content", "count", "width"), [(b"\xff", 7, 1), (b"\x01\x02", 3, 4)])
def test_bytes_that_are_no_such_indices_are_left_to_others(
    content: bytes, count: int, width: int
) -> None:
    """A bit is set where no index lies; there are more bytes than indices need."""
    with pytest.raises(NotThisCoder):
        encode_indices(content + b"\0" * (width == 4), count, width)


def test_shared_weights_take_their_entropy() -> None:
    """Of 10,000 floats nine in ten are zero, the others one of four: 0.469 + 0.2 bits each."""
    kinds = np.array([0.0, 1.1, -2.3, 0.7, 9.9], np.float32)
    share = [0.9, 0.025, 0.025, 0.025, 0.025]
    weights = kinds[np.random.default_rng(0).choice(5, 10_000, p=share)]

    coded = encode_words(weights.tobytes(), 4)

    assert coded.parameters == (4, 5, 0)
    assert len(coded.head) == 5 + 5 * 4
    assert sum(map(len, coded.bodies)) == pytest.approx(10_000 * 0.669 / 8, rel=0.03)
    assert decode(coded, 40_000) == weights.tobytes()


def test_pruned_weights_that_are_not_shared_are_zeros_and_others() -> None:
    draw = np.random.default_rng(0)
    weights = np.where(draw.random(20_000) < 0.1, draw.normal(size=20_000), 0).astype(np.float32)

    coded = encode_words(weights.tobytes(), 4)

    kept = int((weights != 0).sum())
    assert coded.parameters == (4, 1, kept)
    assert coded.cost < 20_000 * 0.469 / 8 + 4 * kept + 100
    assert decode(coded, 80_000) == weights.tobytes()


def test_dense_weights_have_no_palette() -> None:
    weights = np.random.default_rng(0).normal(size=5000).astype(np.float32).tobytes()

    with pytest.raises(NotThisCoder):
        encode_words(weights, 4)
    assert encode_shuffled(weights, 4).cost < encode_zstd(weights).cost


def test_a_frame_may_not_claim_more_than_it_should() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    assert len(bomb) < 5000

    with pytest.raises(ValueError, match="50000000 bytes where 100 belong"):
        decompress(bomb, 100)


CODED = encode_words(np.array([1, 1, 2, 1, 5], np.uint16).tobytes(), 2)
PACKED = encode_indices(b"\x21", 2, 4)


@pytest.mark.parametrize(
    ("coded", "size"),
    [
        (replace(CODED, coder="other"), 10),
        (replace(CODED, parameters=()), 10),
        (replace(CODED, parameters=(3, 3, 0)), 10),
        (replace(CODED, parameters=(2, 2, 0)), 10),
        (replace(CODED, parameters=(2, 3, 1)), 10),
        (replace(CODED, bodies=()), 10),
        (replace(CODED, head=CODED.head[:-1]), 10),
        (CODED, 8),
        (replace(PACKED, parameters=(2, 1 << 62, 3)), 1),
        (replace(PACKED, parameters=(1 << 62, 4, 3)), 1),
        (replace(PACKED, parameters=(2, 1, 3)), 1),
        (Coded("plain", (), b"abc", ()), 2),
        (Coded("zstd", (), b"", (b"abc",)), 2),
        (Coded("shuffled", (2,), b"", (b"",)), 3),
    ],
)
def test_what_does_not_fit_together_is_refused(coded: Coded, size: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        decode(coded, size)
