"""Range asymmetric numeral systems (Duda 2013): symbols in as many bits as they carry.

A symbol s of probability f_s / M, with F_s = f_0 + .. + f_(s-1), takes a state x to

    x' = floor(x / f_s) M + F_s + (x mod f_s),              so log2 x' = log2 x - log2(f_s / M)

up to a part in x, and is found again, with the state before it, by

    F_s <= x' mod M < F_s + f_s,      x = f_s floor(x' / M) + (x' mod M) - F_s.

States stay in [2^31, 2^63): before a step that would leave it 32 bits go out, and after a step back
32 bits come in. What goes in last comes out first, so symbols are written from the last to the
first and read in order.

Many states work side by side on every L-th symbol each, which numpy does at once. A state costs
eight bytes at the end, so short messages have few. All is whole numbers: what one machine writes
every other one reads.

Probabilities are sent as one byte a symbol, b = round(-8 log2 p), which is off by 4.4 % at most and
costs 0.05 % of the bits at most; 255 says that the symbol does not occur.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
_States = NDArray[np.uint64]

ABSENT = 255
_SCALE = 16
_TOTAL = 1 << _SCALE
_LOWEST = 1 << 31
_MOST_STATES = 2048
_SYMBOLS_OF_A_STATE = 8192
_EIGHTHS = (65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734)
"""2^16 2^(-i/8), written out: every machine must have the same."""


def rates(counts: NDArray[np.int64]) -> bytes:
    """The byte of every symbol that tells its probability.

    Args:
        counts: of symbols 0, 1 .. k - 1, not all zero.
    """
    total = counts.sum()
    with np.errstate(divide="ignore"):
        bits = np.rint(8 * (np.log2(total) - np.log2(counts)))
    return np.where(counts > 0, np.minimum(bits, ABSENT - 1), ABSENT).astype(np.uint8).tobytes()


def frequencies(rate: bytes) -> NDArray[np.int64]:
    """f_0 .. f_(k-1), of sum M; 0 where the symbol does not occur.

    Raises:
        ValueError: no symbol occurs, or more than 256.
    """
    present = [number for number, byte in enumerate(rate) if byte != ABSENT]
    if not present or len(rate) > 256:
        raise ValueError("a code for no symbols or for more than 256")
    weights = {i: (_EIGHTHS[rate[i] % 8] << 16) >> (rate[i] // 8) for i in present}
    whole = sum(weights.values())
    found = np.zeros(len(rate), np.int64)
    for number, weight in weights.items():
        found[number] = max(weight * _TOTAL // whole, 1)
    # What rounding leaves over, or took too much, is the most frequent symbol's.
    found[found.argmax()] += _TOTAL - found.sum()
    return found


def encode(symbols: Symbols, rate: bytes) -> bytes:
    """Write symbols; nothing where there is only one kind of them, or none.

    Args:
        symbols: `[n]`, each of a present rate.
        rate: of every symbol, see `rates`.
    """
    found = frequencies(rate)
    if not len(symbols) or found.max() == _TOTAL:
        return b""
    size = found.astype(np.uint64)
    first = (np.cumsum(found) - found).astype(np.uint64)
    scale, word = np.uint64(_SCALE), np.uint64(32)
    # A state from here on would leave its range.
    full = size << np.uint64(63 - _SCALE)
    states = np.full(_states(len(symbols)), _LOWEST, np.uint64)
    written = []
    for start in reversed(range(0, len(symbols), len(states))):
        now = symbols[start : start + len(states)]
        state = states[: len(now)]
        over = state >= full[now]
        written.append((state[over] & np.uint64(0xFFFF_FFFF)).astype("<u4"))
        state[over] >>= word
        sizes = size[now]
        quotient, rest = np.divmod(state, sizes)
        state[:] = (quotient << scale) + first[now] + rest
    return states.astype("<u8").tobytes() + np.concatenate(written[::-1]).tobytes()


def decode(code: bytes, count: int, rate: bytes) -> Symbols:
    """The inverse of `encode`: `[count]`.

    Raises:
        ValueError: the code is not one of so many symbols.
    """
    found = frequencies(rate)
    if not count or found.max() == _TOTAL:
        if code:
            raise ValueError("a code for symbols that need none")
        return np.full(count, found.argmax(), np.uint8)
    number = _states(count)
    if len(code) < 8 * number or len(code) % 4:
        raise ValueError("a code without its states")
    states = np.frombuffer(code, "<u8", number).astype(np.uint64)
    if (states < _LOWEST).any() or (states >= 1 << 63).any():
        raise ValueError("a code with states out of their range")
    words = np.frombuffer(code, "<u4", offset=8 * number).astype(np.uint64)
    size = found.astype(np.uint64)
    first = (np.cumsum(found) - found).astype(np.uint64)
    owner = np.repeat(np.arange(len(found), dtype=np.uint8), found)
    scale, word, low = np.uint64(_SCALE), np.uint64(32), np.uint64(_TOTAL - 1)
    symbols, place = np.empty(count, np.uint8), 0
    for start in range(0, count, number):
        state = states[: min(number, count - start)]
        slot = state & low
        now = owner[slot]
        symbols[start : start + len(state)] = now
        state[:] = size[now] * (state >> scale) + slot - first[now]
        under = np.flatnonzero(state < _LOWEST)
        read = words[place : place + len(under)]
        if len(read) < len(under):
            raise ValueError("a code that ends too early")
        state[under] = (state[under] << word) | read
        place += len(under)
    if place < len(words) or (states != _LOWEST).any():
        raise ValueError("a code that does not end where its symbols do")
    return symbols


def _states(count: int) -> int:
    return max(min(count // _SYMBOLS_OF_A_STATE, _MOST_STATES), 1)
