"""Symbols by their frequency."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from secateur.archive.rans import ABSENT, decode, encode, frequencies, rates

Symbols = NDArray[np.uint8]


def drawn(probabilities: list[float], count: int, seed: int = 0) -> Symbols:
    draw = np.random.default_rng(seed)
    return draw.choice(len(probabilities), count, p=probabilities).astype(np.uint8)


def rate_of(symbols: Symbols) -> bytes:
    return rates(np.bincount(symbols, minlength=1))


def entropy_bytes(symbols: Symbols) -> float:
    share = np.bincount(symbols) / len(symbols)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum() * len(symbols) / 8)


def test_a_rate_is_eight_times_the_bits() -> None:
    """Of 8 symbols 4, 2, 1, 1 and none: 1, 2, 3, 3 bits."""
    assert list(rates(np.array([4, 2, 1, 0, 1]))) == [8, 16, 24, ABSENT, 24]


def test_frequencies_are_of_65536() -> None:
    assert frequencies(bytes([8, 16, 24, ABSENT, 24])).tolist() == [32768, 16384, 8192, 0, 8192]


def test_the_commonest_symbol_gets_what_rounding_leaves() -> None:
    """2^-1/8, .. are no shares of one; a symbol of the least rate has 1 at least."""
    found = frequencies(bytes([3, 9, 254]))

    assert found.sum() == 65536
    assert found[2] == 1
    assert found[0] / found[1] == pytest.approx(2 ** (6 / 8), rel=1e-3)


def test_one_state_by_hand() -> None:
    """Two symbols of a half each: a step takes x to 2^16 floor(x / 2^15) + 2^15 s + x mod 2^15.

    From 2^31 by 0, then by 1: 2^31 is 65536 times 2^15, so x = 65536 * 2^16 = 2^32; 2^32 is 131072
    times 2^15, so x = 131072 * 2^16 + 2^15 = 2^33 + 2^15. Symbols go in from the last on.
    """
    code = encode(np.array([1, 0], np.uint8), bytes([8, 8]))

    assert int.from_bytes(code, "little") == 2**33 + 2**15
    assert decode(code, 2, bytes([8, 8])).tolist() == [1, 0]


@settings(deadline=None)
@given(
    kinds=st.integers(1, 256),
    count=st.integers(0, 400),
    sharpness=st.floats(0.05, 5),
    seed=st.integers(0, 2**31),
)
def test_symbols_come_back(kinds: int, count: int, sharpness: float, seed: int) -> None:
    share = np.random.default_rng(seed).dirichlet(np.full(kinds, sharpness) + 1e-9)
    symbols = drawn(list(share), count, seed)
    rate = rate_of(symbols) if count else bytes(kinds)

    code = encode(symbols, rate)

    assert np.array_equal(decode(code, count, rate), symbols)


def test_many_states_side_by_side() -> None:
    symbols = drawn([0.7, 0.2, 0.1], 8192 * 3 + 5)

    code = encode(symbols, rate_of(symbols))

    assert np.array_equal(decode(code, len(symbols), rate_of(symbols)), symbols)


@pytest.mark.parametrize("probabilities", [[0.92, 0.05, 0.02, 0.01], [1 / 16] * 16, [0.999, 0.001]])
def test_it_takes_as_many_bits_as_the_symbols_carry(probabilities: list[float]) -> None:
    symbols = drawn(probabilities, 100_000)

    code = encode(symbols, rate_of(symbols))

    assert entropy_bytes(symbols) <= len(code) <= 1.003 * entropy_bytes(symbols) + 8 * 12


def test_symbols_of_one_kind_take_nothing() -> None:
    symbols = np.full(1000, 3, np.uint8)
    rate = rate_of(symbols)

    assert encode(symbols, rate) == b""
    assert np.array_equal(decode(b"", 1000, rate), symbols)


def test_every_machine_writes_the_same() -> None:
    symbols = (np.arange(20_000) ** 2 % 251 % 7).astype(np.uint8)

    written = rate_of(symbols) + encode(symbols, rate_of(symbols))

    assert hashlib.sha256(written).hexdigest() == (
        "1e2b8d7486b2c701aaf81a7b4d7d12e7788fdc5fa64e0998c07952a93a1466a7"
    )


@settings(deadline=None)
@given(data=st.data())
def test_damaged_codes_are_refused_or_give_other_symbols(data: st.DataObject) -> None:
    symbols = drawn([0.8, 0.1, 0.1], 300)
    rate = rate_of(symbols)
    code = bytearray(encode(symbols, rate))
    place = data.draw(st.integers(0, len(code) - 1))
    code[place] ^= 1 << data.draw(st.integers(0, 7))

    try:
        found = decode(bytes(code), 300, rate)
    except ValueError:
        return
    assert len(found) == 300
    assert not np.array_equal(found, symbols)


@pytest.mark.parametrize("cut", [1, 4, 8, 12])
def test_a_code_that_is_cut_off_is_refused(cut: int) -> None:
    symbols = drawn([0.5, 0.25, 0.25], 300)
    code = encode(symbols, rate_of(symbols))

    with pytest.raises(ValueError, match="code"):
        decode(code[:-cut], 300, rate_of(symbols))


@pytest.mark.parametrize("rate", [b"", bytes([ABSENT] * 4), bytes(257)])
def test_rates_of_nothing_are_refused(rate: bytes) -> None:
    with pytest.raises(ValueError, match="no symbols"):
        decode(b"", 4, rate)
