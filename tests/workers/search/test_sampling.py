"""What is tried next: values within the space, none twice, and the same from the same history."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
from secateur.recipe_search import Search

from workers.search.sampling import Tried, suggest

SPACE: dict[str, Any] = {
    "stages.0.amount": {"low": 0.2, "high": 0.8},
    "stages.0.lr": {"low": 0.001, "high": 1.0, "log": True},
    "stages.0.epochs": {"low": 1, "high": 6},
    "stages.0.ratio": {"low": 0.1, "high": 0.75, "step": 0.2},
    "stages.0.rounds": {"low": 4, "high": 64, "step": 20},
    "stages.0.criterion": ["l1_norm", None, {"kind": "x", "rounds": 2}, 1, True],
}
SAMPLERS = ["tpe", "nsga2", "random"]


def search(**fields: Any) -> Search:
    given = {"space": SPACE, "objectives": ["accuracy", "macs"], "trials": 12}
    return Search.model_validate(given | fields)


def history(wanted: Search, ended: int, *, running: int = 0) -> list[Tried]:
    tried: list[Tried] = []
    for number in range(ended):
        found = suggest(wanted, tried)
        assert found is not None
        # as it is after a way through the database
        memory = json.loads(json.dumps(found.memory))
        point = json.loads(json.dumps(found.point))
        good = 1 - float(point.get("stages.0.amount", 0.5))
        values = None if number == 3 else [good, 100 * good][: len(wanted.objectives)]
        tried.append(Tried(point, values, ended=True, acceptable=number != 2, memory=memory))
    for _ in range(running):
        found = suggest(wanted, tried)
        assert found is not None
        tried.append(Tried(found.point, memory=found.memory))
    return tried


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_values_lie_in_the_space(sampler: str) -> None:
    for one in history(search(sampler=sampler), 10, running=2):
        point = one.point
        assert list(point) == list(SPACE)
        assert 0.2 <= point["stages.0.amount"] <= 0.8
        assert point["stages.0.amount"] == float(f"{point['stages.0.amount']:.6g}")
        assert 0.001 <= point["stages.0.lr"] <= 1
        assert point["stages.0.epochs"] in range(1, 7)
        assert isinstance(point["stages.0.epochs"], int)
        assert point["stages.0.ratio"] in (0.1, 0.3, 0.5, 0.7)
        assert point["stages.0.rounds"] in (4, 24, 44, 64)
        assert point["stages.0.criterion"] in SPACE["stages.0.criterion"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_history_suggests_the_same(sampler: str) -> None:
    wanted = search(sampler=sampler)
    tried = history(wanted, 6, running=1)
    assert suggest(wanted, tried) == suggest(wanted, tried)
    assert suggest(wanted, tried) != suggest(search(sampler=sampler, seed=1), tried)


def test_what_was_good_draws_the_sampler_near() -> None:
    space = {"stages.0.a": {"low": 0.0, "high": 1.0}, "stages.0.b": {"low": 0.0, "high": 1.0}}
    early, late = [], []
    for seed in range(3):
        wanted = search(space=space, objectives=["loss"], trials=40, seed=seed)
        tried: list[Tried] = []
        losses = []
        for _ in range(40):
            found = suggest(wanted, tried)
            assert found is not None
            a, b = found.point.values()
            losses.append((a - 0.3) ** 2 + (b - 0.7) ** 2)
            tried.append(Tried(found.point, losses[-1:], ended=True))
        early.append(statistics.median(losses[:10]))
        late.append(statistics.median(losses[-10:]))
    assert statistics.mean(late) < statistics.mean(early) / 2


def test_generations_of_nsga2_are_remembered() -> None:
    wanted = search(sampler="nsga2", trials=20)
    tried = history(wanted, 9)
    generations = [next(iter(one.memory.values())) for one in tried]
    assert generations[0] == 0
    # a generation is 4 trials here, and one of them failed
    assert generations == [0] * 5 + [1] * 4


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_nothing_is_tried_twice_and_small_spaces_end(sampler: str) -> None:
    space = {"stages.0.a": [1, 2], "stages.0.b": [True, None, "x"]}
    wanted = search(space=space, sampler=sampler, trials=50, objectives=["loss"])
    tried = history(wanted, 6)
    points = {tuple(one.point.values()) for one in tried}
    assert points == set(product([1, 2], [True, None, "x"]))
    assert suggest(wanted, tried) is None


def test_a_whole_grid_comes_in_order() -> None:
    space = {
        "stages.0.a": {"low": 1, "high": 2},
        "stages.0.b": {"low": 0, "high": 0.2, "step": 0.1},
    }
    tried = history(search(space=space, sampler="grid", trials=6, objectives=["loss"]), 6)
    assert [tuple(one.point.values()) for one in tried] == [
        (1, 0), (1, 0.1), (1, 0.2), (2, 0), (2, 0.1), (2, 0.2),
    ]  # fmt: skip


def test_a_part_of_a_grid_is_drawn_by_the_seed() -> None:
    space = {"stages.0.a": {"low": 1, "high": 10**6}, "stages.0.b": {"low": 1, "high": 10**6}}
    points = [
        [tuple(one.point.values()) for one in history(
            search(space=space, sampler="grid", trials=5, seed=seed, objectives=["loss"]), 5
        )]
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert points[0] == points[1]
    assert points[0] != points[2]
    assert len(set(points[0])) == 5


def test_sampling_loads_no_torch() -> None:
    code = (
        "import sys, workers.search.coordinator as c\n"
        "assert 'optuna' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "import workers.search.sampling, workers.search.closing, reporting.search_html\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
