"""How processes share a batch, and what they add up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.training.world import Alone, Part, Processes


def parts(size, start, stop):
    return [Processes(rank, size).part(start, stop) for rank in range(size)]


def test_ten_samples_for_three_processes():
    # 3, 3 and 4 samples; each weighs its mean by 3 n_r / 10
    assert parts(3, 20, 30) == [Part(20, 23, 0.9), Part(23, 26, 0.9), Part(26, 30, 1.2)]


def test_fewer_than_two_samples_each_are_not_cut():
    assert parts(2, 64, 67) == [Part(64, 67, counted=True), Part(64, 67, counted=False)]
    assert parts(2, 64, 68) == [Part(64, 66, 1.0), Part(66, 68, 1.0)]


@given(st.integers(2, 8), st.integers(0, 100), st.integers(1, 200), st.integers(0, 2**31))
def test_the_mean_over_processes_is_the_mean_over_samples(size, start, samples, seed):
    losses = torch.rand(samples, generator=torch.Generator().manual_seed(seed)).double()
    found, seen = 0.0, []
    for part in parts(size, start, start + samples):
        first, last = (place - start for place in part.rows)
        found += part.weight * float(losses[first:last].mean()) / size
        seen += range(first, last) if part.counted else []
    assert found == pytest.approx(float(losses.mean()), rel=1e-12)
    assert seen == list(range(samples))


def test_only_the_first_process_takes_up_sums():
    sums = {"loss": torch.tensor(3.0), "counted": 7, "by_class": {"right": torch.ones(2)}}
    teacher = {"teacher": {"buffer": torch.ones(1)}}
    assert Processes(0, 2).own(sums | teacher) == sums | teacher
    others = Processes(1, 2).own(sums | teacher)
    assert others["loss"] == 0
    assert others["counted"] == 0
    assert others["by_class"]["right"].tolist() == [0, 0]
    assert others["teacher"] is teacher["teacher"]


def test_a_process_alone_does_everything():
    world = Alone()
    assert world.part(3, 9) == Part(3, 9, 1.0)
    assert world.agree(True)
    assert world.told(lambda: 5) == 5
    sums = {"loss": torch.tensor(3.0)}
    assert world.summed(sums) is sums
    assert world.own(sums) is sums
