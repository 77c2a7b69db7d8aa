"""Numbers as a reader wants them: units, digits that line up, signs that are visible."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MISSING = "–"  # noqa: RUF001  # an en dash, the typographer's sign for "no value"
MINUS = "−"  # noqa: RUF001  # as wide as a plus, so that columns line up


def integer(value: int) -> str:
    """`1234567` as `1,234,567`."""
    return f"{value:,}"


def short(value: float) -> str:
    """Three significant digits with an SI letter: `1234567` as `1.23 M`."""
    for factor, letter in _SI:
        # 999,999 rounds to 1.00 M, not to 1000 k.
        if abs(value) >= factor * 0.9995:
            return f"{_three_digits(value / factor)} {letter}"
    return _three_digits(value) if value != int(value) else str(int(value))


def size(value: int) -> str:
    """Bytes in decimal units: `244812` as `245 kB`."""
    text = short(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def _three_digits(value: float) -> str:
    value = float(f"{value:.3g}")  # rounds first, so that 0.9996 is 1.00 and not 1.000
    magnitude = 0 if value == 0 else math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, 2 - magnitude)}f}"


def percent(fraction: float, digits: int = 1) -> str:
    """`0.1234` as `12.3 %`."""
    return f"{fraction * 100:.{digits}f} %"


def change(before: float, after: float) -> str:
    """Relative change in percent, with a sign that shows."""
    if before == after:
        return "0.0 %"
    if before == 0:
        return MISSING
    return signed((after - before) / before * 100, 1) + " %"


def signed(value: float, digits: int) -> str:
    """A number with its sign, the minus as wide as the plus."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def points(fraction: float) -> str:
    """A difference of accuracies in percentage points, with a sign that shows."""
    return f"{signed(fraction * 100, 2)} points"


def ratio(value: float) -> str:
    """`2.4567` as `2.46×`."""  # noqa: RUF002
    digits = 2 if value < 100 else 0
    return f"{value:.{digits}f}×"  # noqa: RUF001


def milliseconds(value: float) -> str:
    """A latency with three digits that mean something."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def elapsed(value: float) -> str:
    """Milliseconds of work as `820 ms`, `12.4 s`, `3 min 05 s` or `2 h 10 min`."""
    if value < 1000:
        return f"{value:.0f} ms"
    seconds = value / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def scientific(value: float) -> str:
    """An error as `3.1e-16`; exactly zero as `0`."""
    return "0" if value == 0 else f"{value:.1e}"


def loss(value: float | None) -> str:
    """A loss with four decimals."""
    return MISSING if value is None else f"{value:.4f}"


def shape(sides: Sequence[int]) -> str:
    """`[6, 1, 5, 5]` as `6 × 1 × 5 × 5`."""  # noqa: RUF002
    return " × ".join(str(side) for side in sides) or "scalar"  # noqa: RUF001
