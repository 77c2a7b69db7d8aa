"""Numbers in the report, by hand."""

from __future__ import annotations

import pytest

from reporting import formatting
from reporting.formatting import MINUS, MISSING


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.00 k"),
        (61_706, "61.7 k"),
        (999_499, "999 k"),
        (999_999, "1.00 M"),
        (4_089_184_256, "4.09 G"),
        (0.25, "0.250"),
    ],
)
def test_short(value: float, text: str) -> None:
    assert formatting.short(value) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12 B"), (244_812, "245 kB"), (10**9, "1.00 GB")])
def test_size(value: int, text: str) -> None:
    assert formatting.size(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 38.7, f"{MINUS}61.3 %"),
        (2, 3, "+50.0 %"),
        (5, 5, "0.0 %"),
        (0, 3, MISSING),
        (1e6, 1e6 + 1, "0.0 %"),
    ],
)
def test_change(before: float, after: float, text: str) -> None:
    assert formatting.change(before, after) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (820, "820 ms"),
        (12_400, "12.4 s"),
        (185_000, "3 min 05 s"),
        (59_960, "60.0 s"),
        (7_800_000, "2 h 10 min"),
    ],
)
def test_elapsed(value: float, text: str) -> None:
    assert formatting.elapsed(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (2.22e-16, "2.2e-16"), (0.0313, "3.1e-02")]
)
def test_scientific(value: float, text: str) -> None:
    assert formatting.scientific(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.2131, "0.213"), (18.7, "18.70"), (1234.56, "1234.6")]
)
def test_milliseconds(value: float, text: str) -> None:
    assert formatting.milliseconds(value) == text
