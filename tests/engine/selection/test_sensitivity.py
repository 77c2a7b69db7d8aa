from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.selection.sensitivity import RATIOS, equal_drift, scan


def test_the_scan_asks_for_every_layer_and_ratio():
    asked = []

    def measure(layer, ratio):
        asked.append((layer, ratio))
        return ratio * (2 if layer == "b" else 1)

    assert scan(["a", "b"], measure) == {"a": [0.25, 0.5, 0.75], "b": [0.5, 1.0, 1.5]}
    assert asked == [(layer, ratio) for layer in "ab" for ratio in (0.25, 0.5, 0.75)]


def test_a_layer_twice_as_sensitive_loses_half_as_much():
    # D_a(r) = r and D_b(r) = 2 r of 12 units each: after n units n/12 and 2n/12. Nine go at the
    # level 6/12: six of a and three of b.
    curves = {"a": [0.25, 0.5, 0.75], "b": [0.5, 1.0, 1.5]}
    assert equal_drift(curves, [12, 12], 9) == {"a": 6, "b": 3}


def test_a_knee_is_not_passed():
    # a costs nothing up to one half and then 4 per unit share; b costs 1 per unit share.
    # 8 units each, 7 to go: a gives 4 at level 0; 3 more: b at 1/8, 2/8, 3/8, before a at 4/8.
    curves = {"a": [0.0, 0.0, 1.0], "b": [0.25, 0.5, 0.75]}
    assert equal_drift(curves, [8, 8], 7) == {"a": 4, "b": 3}


def test_past_the_last_ratio_the_slope_goes_on_and_one_stays():
    curves = {"a": [0.25, 0.5, 0.75], "b": [10.0, 20.0, 30.0]}
    assert equal_drift(curves, [8, 8], 7) == {"a": 7, "b": 0}
    assert equal_drift(curves, [8, 8], 16) == {"a": 7, "b": 7}


def test_a_drift_that_sinks_is_taken_for_chance():
    # b at 0.5, 0.2, 0.6 counts as 0.5, 0.5, 0.6; a is flat at 0.1 from the first ratio on.
    curves = {"a": [0.1, 0.1, 0.1], "b": [0.5, 0.2, 0.6]}
    assert equal_drift(curves, [4, 4], 3) == {"a": 3, "b": 0}


def test_a_layer_without_which_nothing_is_finite_goes_last():
    curves = {"a": [float("inf")] * 3, "b": [1.0, 2.0, 3.0]}
    assert equal_drift(curves, [4, 4], 3) == {"a": 0, "b": 3}


@given(
    st.lists(
        st.tuples(st.lists(st.floats(0, 5), min_size=3, max_size=3), st.integers(1, 60)),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.01, 0.99),
)
def test_the_total_is_exact_and_every_layer_keeps_one(layers, share):
    assert len(RATIOS) == 3
    curves = {str(number): curve for number, (curve, _) in enumerate(layers)}
    units = [size for _, size in layers]
    total = round(share * sum(units))
    gone = equal_drift(curves, units, total)
    assert sum(gone.values()) == min(total, sum(units) - len(units))
    assert all(0 <= gone[str(n)] < size for n, size in enumerate(units))
