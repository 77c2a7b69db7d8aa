from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.selection.apportion import kept_by_ratio, kernel_ratio, plain_ratio


def test_ratio_of_a_convolution_counts_its_kernel():
    # (8 + 4 + 3 + 3) / (8 * 4 * 3 * 3) = 18 / 288
    assert kernel_ratio([(8, 4, 3, 3)]) == pytest.approx(0.0625)


def test_the_plain_ratio_does_not():
    # (8 + 4) / (8 * 4) = 12 / 32
    assert plain_ratio([(8, 4, 3, 3)]) == pytest.approx(0.375)
    assert plain_ratio([(10, 20), (10, 5)]) == kernel_ratio([(10, 20), (10, 5)])


def test_ratio_of_coupled_layers_is_of_their_sums():
    # (10 + 20) + (10 + 5) over 200 + 50
    assert kernel_ratio([(10, 20), (10, 5)]) == pytest.approx(45 / 250)


def test_densities_follow_the_ratio():
    # LeNet-300-100 on 784 inputs, 5 % of 266,200 weights kept = 13,310.
    # r n is the sum of dimensions: 1084, 400, 110; eps = 13310 / 1594 = 8.3501.
    # Wanted: 9051.468, 3340.025 and 918.507; the floors leave 1 for the largest remainder.
    ratios = [1084 / 235_200, 400 / 30_000, 110 / 1000]
    assert kept_by_ratio(ratios, [235_200, 30_000, 1000], 13_310) == [9051, 3340, 919]


def test_a_density_past_one_is_capped_and_the_rest_spread():
    # r n: 1084, 400, 110; 20 % of 266,200 = 53,240: eps = 33.40, and the last layer would get
    # 3674 of its 1000. It stays whole; 52,240 over 1484: eps = 35.202 gives 38158.8 and 14080.9.
    ratios = [1084 / 235_200, 400 / 30_000, 110 / 1000]
    assert kept_by_ratio(ratios, [235_200, 30_000, 1000], 53_240) == [38_159, 14_081, 1000]


def test_every_layer_keeps_one():
    assert kept_by_ratio([1.0, 0.001], [100, 100], 10) == [9, 1]


@given(
    st.lists(st.tuples(st.floats(1e-4, 1), st.integers(1, 500)), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
)
def test_totals_are_exact_and_within_bounds(layers, share):
    ratios, units = [ratio for ratio, _ in layers], [size for _, size in layers]
    keep = round(share * sum(units))
    kept = kept_by_ratio(ratios, units, keep)
    assert sum(kept) == max(keep, len(units))
    assert all(1 <= count <= size for count, size in zip(kept, units, strict=True))
