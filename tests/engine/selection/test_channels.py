from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Allocation

from engine.selection.channels import Originals, Target, select_channels
from engine.selection.schedule import final_count
from tests.engine.coupled import MadeCoupling, MadeGroup, MadeSlices, coupling_of

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def target_of(coupling, allocation, round_number=1, rounds=1):
    return Target(allocation, Originals.of(coupling.groups), round_number, rounds)


def random_scores(coupling, seed):
    return np.random.default_rng(seed).random(coupling.component_count)


def test_local_takes_the_lowest_of_each_group():
    coupling = coupling_of([4, 2])
    scores = np.array([5.0, 1.0, 4.0, 2.0, 90.0, 80.0])
    plan = select_channels(coupling, scores, target_of(coupling, Allocation(amount=0.5)))
    assert plan.removed.tolist() == [1, 3, 5]
    assert plan.by_group == {"g0": 2, "g1": 1}


def test_global_takes_the_lowest_anywhere():
    coupling = coupling_of([4, 2])
    scores = np.array([5.0, 1.0, 4.0, 2.0, 90.0, 80.0])
    allocation = Allocation(scope="global", amount=0.5)
    plan = select_channels(coupling, scores, target_of(coupling, allocation))
    assert plan.removed.tolist() == [1, 2, 3]


def test_global_leaves_the_best_of_every_group():
    coupling = coupling_of([3, 3])
    scores = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    allocation = Allocation(scope="global", count=3)
    plan = select_channels(coupling, scores, target_of(coupling, allocation))
    assert plan.removed.tolist() == [0, 1, 3]


def test_count_is_per_group_when_local_and_in_all_when_global():
    coupling = coupling_of([6, 6])
    scores = np.arange(12.0)
    local = select_channels(coupling, scores, target_of(coupling, Allocation(count=2)))
    everywhere = select_channels(
        coupling, scores, target_of(coupling, Allocation(scope="global", count=2))
    )
    assert local.removed.tolist() == [0, 1, 6, 7]
    assert everywhere.removed.tolist() == [0, 1]


def test_channels_without_a_score_stay():
    coupling = coupling_of([4])
    scores = np.array([np.nan, 2.0, np.nan, 1.0])
    plan = select_channels(coupling, scores, target_of(coupling, Allocation(amount=0.75)))
    assert plan.removed.tolist() == [1, 3]


def test_round_to_keeps_multiples_rounded_up():
    coupling = coupling_of([20])
    plan = select_channels(
        coupling, np.arange(20.0), target_of(coupling, Allocation(amount=0.5)), round_to=8
    )
    assert 20 - len(plan.removed) == 16  # 10 wanted, the next multiple of 8 is 16


def test_round_to_counts_channels_not_components():
    # Each component is one index in each of 4 heads: 2 components make 8 channels.
    component = np.tile(np.arange(6), 4)
    coupling = MadeCoupling(
        6, [MadeSlices("q.weight", 0, "output", component)], [MadeGroup("q", np.arange(6))]
    )
    plan = select_channels(
        coupling, np.arange(6.0), target_of(coupling, Allocation(amount=0.5)), round_to=8
    )
    assert len(plan.removed) == 2  # keep 3 wanted, rounded up to 4 components = 16 channels


@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_local_counts_are_exact_where_one_can_stay(sizes, amount, seed):
    coupling = coupling_of(sizes)
    allocation = Allocation(amount=amount)
    plan = select_channels(coupling, random_scores(coupling, seed), target_of(coupling, allocation))
    for group in coupling.groups:
        size = len(group.components)
        removed = np.isin(group.components, plan.removed).sum()
        assert removed == plan.by_group[group.name] == min(final_count(allocation, size), size - 1)


@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_global_count_is_exact_where_one_of_each_can_stay(sizes, amount, seed):
    coupling = coupling_of(sizes)
    allocation = Allocation(scope="global", amount=amount)
    plan = select_channels(coupling, random_scores(coupling, seed), target_of(coupling, allocation))
    spare = sum(sizes) - len(sizes)
    assert len(plan.removed) == min(final_count(allocation, sum(sizes)), spare)
    for group in coupling.groups:
        assert not np.isin(group.components, plan.removed).all()


@given(SIZES, st.integers(1, 16), st.booleans(), st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_round_to_holds_for_every_group(sizes, step, globally, amount, seed):
    coupling = coupling_of(sizes)
    allocation = Allocation(scope="global" if globally else "local", amount=amount)
    plan = select_channels(
        coupling,
        random_scores(coupling, seed),
        target_of(coupling, allocation),
        round_to=step,
    )
    for size, removed in zip(sizes, plan.by_group.values(), strict=True):
        assert removed == 0 or (size - removed) % step == 0


@given(SIZES, st.sampled_from(["local", "global"]), st.integers(2, 6), st.floats(0.05, 0.95))
def test_rounds_add_up_to_what_one_shot_removes(sizes, scope, rounds, amount):
    coupling = coupling_of(sizes)
    allocation = Allocation(scope=scope, amount=amount)
    originals = Originals.of(coupling.groups)
    at_once = select_channels(coupling, np.arange(float(sum(sizes))), Target(allocation, originals))
    gone = {group.name: 0 for group in coupling.groups}
    for round_number in range(1, rounds + 1):
        now = coupling_of([size - gone[f"g{n}"] for n, size in enumerate(sizes)])
        target = Target(allocation, originals, round_number, rounds)
        plan = select_channels(now, np.arange(float(now.component_count)), target)
        for name, count in plan.by_group.items():
            gone[name] += count
    assert sum(gone.values()) == len(at_once.removed)
    if scope == "local":
        assert gone == at_once.by_group


@given(SIZES, st.sampled_from(["local", "global"]))
def test_ties_fall_to_the_first(sizes, scope):
    coupling = coupling_of(sizes)
    plan = select_channels(
        coupling,
        np.ones(coupling.component_count),
        target_of(coupling, Allocation(scope=scope, amount=0.5)),
    )
    for group in coupling.groups:
        count = plan.by_group[group.name]
        assert np.isin(group.components[:count], plan.removed).all()


@given(SIZES, st.integers(0, 2**31), st.floats(0.05, 0.5), st.floats(0.5, 0.95))
def test_more_never_spares_what_less_removes(sizes, seed, less, more):
    coupling = coupling_of(sizes)
    scores = random_scores(coupling, seed)
    few, many = (
        select_channels(coupling, scores, target_of(coupling, Allocation(amount=amount)))
        for amount in (less, more)
    )
    assert set(few.removed) <= set(many.removed)
