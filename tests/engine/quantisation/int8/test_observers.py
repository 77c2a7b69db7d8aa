"""Ranges of activations, and what each observer keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.quantisation.int8.observers import LeastSquares, MinMax, Percentile, watch
from engine.quantisation.int8.ranges import ActivationRange


def test_a_range_by_hand() -> None:
    # -1 to 1.54 in 127 steps of 0.02; zero is 50 steps from the bottom.
    given = ActivationRange.of(-1.0, 1.54)
    assert (given.scale, given.zero_point) == (pytest.approx(0.02), 50)
    rounded = given.rounded(torch.tensor([0.0, 0.011, -1.0, 1.54, -9.0, 9.0]))
    # Up to 255 - 50 = 205 steps are not cut off.
    assert torch.allclose(rounded, torch.tensor([0.0, 0.02, -1.0, 1.54, -1.0, 4.1]))


@pytest.mark.parametrize(("low", "high"), [(2.0, 3.0), (-3.0, -2.0), (0.0, 0.0)])
def test_zero_is_always_exact(low: float, high: float) -> None:
    given = ActivationRange.of(low, high)
    assert float(given.rounded(torch.zeros(()))) == 0.0
    assert 0 <= given.zero_point <= 127
    assert given.scale > 0


def test_min_max_keeps_an_outlier_and_percentile_does_not() -> None:
    values = torch.cat([torch.linspace(0, 1, 9_999), torch.tensor([100.0])])
    kept = {}
    for name, one in (("min_max", MinMax()), ("percentile", Percentile(99.9))):
        one.see(values)
        kept[name] = one.range()
    assert kept["min_max"].scale == pytest.approx(100 / 127)
    # 0.05 % of 10,000 values are cut off above: five, of which one is the outlier.
    assert kept["percentile"].scale == pytest.approx(1 / 127, rel=0.06)


def test_least_squares_cuts_where_the_error_is_smallest() -> None:
    torch.manual_seed(0)
    values = torch.randn(20_000)
    values[0] = 60.0
    one = LeastSquares()
    one.see(values)
    found = one.range()
    assert found is not None

    def error(high: float) -> float:
        given = ActivationRange.of(float(values.min()), high)
        codes = ((values / given.scale).round() + given.zero_point).clamp(0, 127)
        return float(((codes - given.zero_point) * given.scale - values).square().sum())

    high = found.scale * (127 - found.zero_point)
    # Of (60 - c)^2 + 20,000 (c + 4)^2 / (12 * 127^2) the smallest is at 54.
    assert 50.0 < high < 58.0
    assert error(high) < 1.1 * min(error(float(end)) for end in torch.linspace(2, 60, 100))
    assert error(high) < error(60.0)


@given(parts=st.lists(st.sampled_from([1e-3, 1.0, 50.0, 1e4]), min_size=1, max_size=4))
def test_histograms_count_everything_in_any_order(parts: list[float]) -> None:
    generator = torch.Generator().manual_seed(len(parts))
    batches = [size * torch.randn(50, generator=generator) for size in parts]
    forward, backward = LeastSquares(), LeastSquares()
    for batch in batches:
        forward.see(batch)
    for batch in reversed(batches):
        backward.see(batch)
    assert int(forward._counts.sum()) == int(backward._counts.sum()) == 50 * len(parts)
    assert len(forward._counts) <= 4096
    # Where it began decides how wide the bins are, by less than the range of a histogram.
    first, second = forward.range(), backward.range()
    assert first is not None
    assert second is not None
    assert first.scale == pytest.approx(second.scale, rel=0.06)


def test_no_value_has_no_range() -> None:
    for observer in ("min_max", "histogram", "percentile"):
        one = watch(observer, 99.0)
        assert one.range() is None
        one.see(torch.zeros(0, 3))
        assert one.range() is None
