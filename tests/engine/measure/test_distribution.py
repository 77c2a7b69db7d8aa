from __future__ import annotations

import math
import time

import pytest
import torch

from engine.measure.distribution import BINS, MOST_LAYERS, add_state, start_distribution


def bins(**filled: int) -> list[int]:
    """Counts of 32 bins; `b3=2` puts two into bin 3."""
    counts = [0] * BINS
    for name, count in filled.items():
        counts[int(name[1:])] = count
    return counts


def test_counts_by_hand():
    # Bins over [-1.6, 1.6] are 0.1 wide: bin 16 begins at zero.
    weight = torch.tensor([[0.05, 0.05, -0.05], [0.25, 0.0, -1.6], [1.6, 0.0, 0.0]])
    started = start_distribution({"a.weight": weight, "a.bias": torch.tensor([9.0])})
    assert started.edges[0] == pytest.approx(-1.6)
    assert started.edges[16] == 0
    assert started.edges[17] == pytest.approx(0.1)
    (state,) = started.states
    assert (state.state, state.label) == ("original", "original")
    (layer,) = state.layers
    assert layer.name == "a.weight"
    assert layer.counts == bins(b0=1, b15=1, b16=2, b18=1, b31=1)
    assert (layer.zeros, layer.not_finite) == (3, 0)
    assert state.total.counts == layer.counts


def test_later_states_share_the_bins_and_replace_their_kind():
    started = start_distribution({"w": torch.tensor([[1.6, -0.35]])})
    pruned = add_state(started, "pruned", "prune round 1", {"w": torch.tensor([[1.6, 0.0]])})
    again = add_state(pruned, "pruned", "prune round 2", {"w": torch.tensor([[0.0, 0.0]])})
    # Beyond the range: the end bins hold it.
    last = add_state(again, "retrained", "finetune", {"w": torch.tensor([[-7.0, 7.0]])})
    assert [(item.state, item.label) for item in last.states] == [
        ("original", "original"),
        ("pruned", "prune round 2"),
        ("retrained", "finetune"),
    ]
    original, after, trained = (item.total for item in last.states)
    assert original.counts == bins(b12=1, b31=1)
    assert (after.counts, after.zeros) == (bins(), 2)
    assert trained.counts == bins(b0=1, b31=1)
    assert len(started.states) == 1


def test_not_numbers_and_infinities_are_counted_apart():
    weight = torch.tensor([[math.nan, math.inf], [-math.inf, 0.5]])
    (state,) = start_distribution({"w": weight}).states
    assert state.total.not_finite == 3
    assert state.total.counts == bins(b31=1)
    nothing = start_distribution({"w": torch.full((2, 2), math.nan)})
    assert (nothing.edges[0], nothing.edges[-1]) == (-1, 1)
    assert nothing.states[0].total.not_finite == 4
    zeros = start_distribution({"w": torch.zeros(3, 4)})
    assert (zeros.states[0].total.zeros, zeros.edges[-1]) == (12, 1)
    assert start_distribution({}).states[0].total.counts == [0] * BINS


def test_an_outlier_does_not_press_the_others_into_one_bin():
    weight = torch.full((100, 100), 0.01)
    weight[0, 0] = 100.0
    # The root mean square is 1.00 to four digits, of the outlier almost alone.
    edges = start_distribution({"w": weight}).edges
    assert edges[-1] == pytest.approx(8 * math.sqrt((100**2 + 9999 * 0.01**2) / 10_000))


def test_only_the_largest_tensors_are_listed_and_all_are_counted():
    weights = {f"w{size}": torch.full((1, size), 0.5) for size in range(1, 41)}
    started = start_distribution(weights)
    (state,) = started.states
    assert [layer.name for layer in state.layers] == [f"w{size}" for size in range(9, 41)]
    assert len(state.layers) == MOST_LAYERS
    assert started.unlisted_layers == 8
    assert sum(state.total.counts) == 40 * 41 // 2
    later = add_state(started, "pruned", "prune", {"w40": torch.ones(1, 3)})
    assert [layer.name for layer in later.states[1].layers] == ["w40"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_layouts_types_and_more_than_one_chunk_count_every_weight(dtype):
    torch.manual_seed(0)
    weight = torch.randn(64, 32, 24, 24).to(dtype)
    weight[:, :16] = 0
    assert weight.numel() > 2**20
    plain = start_distribution({"w": weight})
    last = start_distribution({"w": weight.to(memory_format=torch.channels_last)})
    sliced = start_distribution({"w": weight.transpose(0, 3)})
    assert plain.states == last.states == sliced.states
    total = plain.states[0].total
    assert total.zeros == int((weight == 0).sum())
    assert sum(total.counts) + total.zeros == weight.numel()
    assert sum(total.counts[16:]) == int((weight > 0).sum())


def test_ten_million_weights_take_seconds():
    weights = {"w": torch.randn(10_000, 1000)}
    started = time.monotonic()
    start_distribution(weights)
    assert time.monotonic() - started < 20
