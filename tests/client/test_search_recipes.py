"""Searches in recipes: what a space may be, what is refused and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from secateur.recipe import FinetuneStage, PruneStage, Recipe
from secateur.recipe_file import RecipeInvalid, read_recipe
from secateur.recipe_search import Search, Span
from secateur.search_space import (
    MOST_CORNERS,
    NoSuchPlace,
    at_point,
    blamed_path,
    corners,
    number_of_points,
    parts_of,
    steps_of,
)  # fmt: skip

AMOUNT = "stages.0.allocation.amount"
STAGES: list[Any] = [
    {"stage": "prune", "allocation": {"amount": 0.5}},
    {"stage": "finetune", "epochs": 1},
]


def recipe(space: Any, *, stages: Any = None, base: Any = None, **search: Any) -> Recipe:
    wanted = {"objectives": ["macs"], "space": space} | search
    return Recipe.model_validate(
        {"stages": stages or STAGES, "search": wanted} | (base or {})
    )  # fmt: skip


def faults(space: Any, **fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        recipe(space, **fields)
    return {
        ".".join(str(part) for part in one["loc"] if part not in ("Span", "list")): one["msg"]
        for one in caught.value.errors()
    }


def test_a_range_a_list_a_pattern_and_a_whole_schedule() -> None:
    schedules = [{"kind": "one_shot"}, {"kind": "iterative", "rounds": 3}]
    found = recipe({
        AMOUNT: {"low": 0.2, "high": 0.8},
        "stages.0.allocation.layers.features.*": {"low": 0.1, "high": 0.9},
        "stages.0.criterion": ["l1_norm", "bn_scale"],
        "stages.0.schedule": schedules,
        "stages.0.round_to": [None, 4],
        "stages.1.epochs": {"low": 1, "high": 4},
        "stages.1.optimizer.lr": {"low": 0.001, "high": 0.1, "log": True},
    })  # fmt: skip
    points = found.corners()
    assert len(points) == 2**7
    point, corner = points[-1]
    stage, training = corner.stages
    assert isinstance(stage, PruneStage)
    assert isinstance(training, FinetuneStage)
    assert stage.allocation.layers == {"features.*": 0.9}
    assert (stage.schedule.kind, stage.round_to, training.epochs) == ("iterative", 4, 4)
    assert point["stages.0.schedule"] == schedules[1]
    # What was left out takes the default that belongs to the trial's own values.
    assert {one.stages[0].criterion: one.stages[0].normalize for _, one in points} == {
        "l1_norm": "mean", "bn_scale": "none",
    }  # fmt: skip


def test_a_recipe_of_objects_is_kept_as_it_was_written() -> None:
    search = Search.model_validate({"space": {AMOUNT: [0.25, 0.5]}, "objectives": ["macs"]})
    found = Recipe(stages=[PruneStage.model_validate(STAGES[0])], search=search)
    assert found.base == {"stages": [STAGES[0]]}
    again = Recipe.model_validate(found.as_written)
    assert again.base == found.base
    assert again.search == search


@pytest.mark.parametrize(
    ("path", "dimension", "words"),
    [
        (AMOUNT, {"low": 0.2, "high": 1.0}, f"with `{AMOUNT}: 1`: Input should be less than 1"),
        ("stages.0.allocation.amout", [0.5], "a recipe has no such field: `amout`"),
        ("stages.5.allocation.amount", [0.5], "there are 2 of these, counted from 0"),
        ("stages.0.criterion.x", [0.5], "`criterion` is the value `l1_norm`"),
        ("stages.0.schedule.rounds", [2], "discriminator 'kind'"),
        ("stages.0.criterion", ["l1_norm", "no_such"], "Input should be 'l1_norm'"),
        ("stages.0.granularity", ["channel", "n_m"], "`n`"),
        ("stages.1.epochs", {"low": 0, "high": 3}, "greater than or equal to 1"),
        ("stages.1.epochs", {"low": 1.5, "high": 2.5}, "valid integer"),
    ],
)
def test_a_corner_that_is_no_recipe(path: str, dimension: Any, words: str) -> None:
    stages = [STAGES[0] | {"criterion": "l1_norm"}, STAGES[1]]
    found = faults({path: dimension}, stages=stages)
    assert list(found) == [f"search.space.{path}"]
    assert words in found[f"search.space.{path}"]


def test_the_blame_goes_to_the_field_the_message_speaks_of() -> None:
    space = {
        "stages.0.allocation.layers.conv*": [0.5],
        "stages.0.criterion": ["l1_norm", "block_influence"],
    }
    found = faults(space)
    assert list(found) == ["search.space.stages.0.criterion"]
    assert "`stages.0.criterion: block_influence`" in found["search.space.stages.0.criterion"]
    assert blamed_path([AMOUNT, "stages.1.epochs"], ("stages", 1, "finetune", "epochs"), "") == (
        "stages.1.epochs"
    )


@pytest.mark.parametrize(
    ("dimension", "words"),
    [
        ({"low": 0.9, "high": 0.2}, "`low` must be below `high`: 0.9 and 0.2 are not"),
        ({"low": 0.5, "high": 0.5}, "`low` must be below `high`"),
        ({"low": 0.2, "high": 0.8, "step": 0.7}, "beyond `high: 0.8`"),
        ({"low": 0.2, "high": 0.8, "step": 0.1, "log": True}, "leave one out"),
        ({"low": 0, "high": 0.8, "log": True}, "a `low` above 0"),
        ({"low": 0.2, "high": float("inf")}, "finite"),
        ({"low": 0.2}, "Field required"),
        ({"low": 0.2, "hihg": 0.3}, "Extra inputs"),
        ([], "at least 1 item"),
        ("0.5", "valid dictionary"),
    ],
)
def test_a_dimension_that_is_none(dimension: Any, words: str) -> None:
    found = faults({AMOUNT: dimension})
    assert any(words in message for message in found.values()), found
    assert all(field.startswith(f"search.space.{AMOUNT}") for field in found)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"space": {}}, "space", "at least 1"),
        ({"space": {"seed": [1, 2]}}, "space", "what varies is in the stages"),
        ({"space": {"stages.0": [1, 2]}}, "space", "what varies is in the stages"),
        ({"space": {"stages.0.a..b": [1, 2]}}, "space", "one dot"),
        ({"space": {AMOUNT: [0.5, 0.5]}}, "space", "`0.5` is listed twice"),
        ({"space": {"stages.0.round_to": [None, None]}}, "space", "`null` is listed twice"),
        (
            {"space": {"stages.0.schedule": [{}], "stages.0.schedule.rounds": [2]}},
            "space", "lies inside `stages.0.schedule`",
        ),
        ({"objectives": []}, "objectives", "at least 1"),
        ({"objectives": ["macs", "macs"]}, "objectives", "given once"),
        ({"objectives": ["speed"]}, "objectives.0", "'accuracy'"),
        ({"choose": "loss"}, "", "valid are `knee`, `macs`"),
        ({"sampler": "grid"}, "", f"needs a `step` in `space.{AMOUNT}`"),
        ({"bounds": {"accuracy": 97}}, "", "0.97, not 97"),
        ({"trials": 0}, "trials", "greater than or equal to 1"),
        ({"trials": 1001}, "trials", "less than or equal to 1000"),
        ({"parallel": 0}, "parallel", "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_search_that_is_none(changes: dict[str, Any], field: str, words: str) -> None:
    found = faults(**({"space": {AMOUNT: {"low": 0.2, "high": 0.8}}} | changes))
    path = f"search.{field}".rstrip(".")
    assert words in found[path]


def test_a_scan_is_not_searched() -> None:
    found = faults({"stages.0.samples": [1]}, stages=[{"stage": "score"}])
    assert "leave one of them out" in found[""]


def test_what_is_wrong_with_the_base_is_told_first() -> None:
    assert list(faults({AMOUNT: [0.5]}, stages=[{"stage": "finetune"}])) == [""]


def test_only_what_the_objective_measures_is_compared() -> None:
    space = {AMOUNT: [0.25, 0.5]}
    found = faults(space, objectives=["miou", "macs"])[""]
    assert "`search.objectives` asks for `miou`, and the trials measure `accuracy`, `loss`" in found
    regression = {"objective": {"loss": "mse", "metrics": ["mae"]}}
    found = faults(space, objectives=["mae"], bounds={"accuracy": 0.5}, base=regression)[""]
    assert "`search.bounds` asks for `accuracy`" in found
    assert recipe(space, objectives=["mse", "mae", "loss"], base=regression).search is not None


def test_needs() -> None:
    space = {AMOUNT: [0.25, 0.5]}
    prune = [STAGES[0]]
    assert recipe(space, stages=prune).needs_dataset() is None
    assert recipe(space, stages=prune, objectives=["loss"]).needs_validation() == (
        "search.objectives"
    )
    bounded = recipe(space, stages=prune, bounds={"accuracy": 0.9})
    assert bounded.needs_dataset() == bounded.needs_validation() == "search.bounds"


def test_corners_of_a_large_space_lie_along_its_edges() -> None:
    span = Span(low=0.1, high=0.9)
    space: dict[str, Any] = {f"stages.0.allocation.layers.l{i}": span for i in range(10)}
    found = list(corners(space))
    assert 2**10 > MOST_CORNERS >= len(found)
    assert all(sorted(point.values())[1:-1] in ([0.1] * 8, [0.9] * 8) for point in found)
    for path in space:
        assert {point[path] for point in found} == {0.1, 0.9}


def test_steps() -> None:
    assert steps_of(Span(low=0.1, high=0.75, step=0.2)) == [0.1, 0.3, 0.5, 0.7]
    assert steps_of(Span(low=0, high=0.3, step=0.1)) == [0.0, 0.1, 0.2, 0.3]
    assert steps_of(Span(low=2, high=5)) == [2, 3, 4, 5]
    assert steps_of(Span(low=4, high=15, step=5)) == [4, 9, 14]
    assert steps_of(Span(low=0.1, high=0.9)) is None
    assert steps_of(["a", None]) == ["a", None]
    space = {"a": Span(low=1, high=10**9), "b": [1, 2], "c": Span(low=0, high=1, step=0.5)}
    assert number_of_points(space) == 10**9 * 2 * 3
    assert number_of_points({"a": Span(low=0.5, high=1)}) is None


def test_paths() -> None:
    assert parts_of("stages.0.allocation.layers.a.b*.c") == [
        "stages", "0", "allocation", "layers", "a.b*.c",
    ]  # fmt: skip
    base = {"stages": [{"x": None}], "seed": 1}
    made = at_point(base, {"stages.0.x.y": 2, "stages.0.z": [3]})
    assert made == {"stages": [{"x": {"y": 2}, "z": [3]}], "seed": 1}
    assert base == {"stages": [{"x": None}], "seed": 1}
    with pytest.raises(NoSuchPlace):
        at_point(base, {"stages.first.x": 1})


def test_patterns_of_the_space_stand_before_those_of_the_base() -> None:
    base = {"stages": [{"allocation": {"layers": {"*": 0.5, "fc.1": 0.1}}}]}
    layers = "stages.0.allocation.layers"
    made = at_point(base, {f"{layers}.conv.*": 0.3, f"{layers}.fc.1": 0.2})
    assert list(made["stages"][0]["allocation"]["layers"].items()) == [
        ("conv.*", 0.3), ("fc.1", 0.2), ("*", 0.5),
    ]  # fmt: skip


def test_a_file_with_a_wrong_corner_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "stages:\n  - {stage: prune, allocation: {amount: 0.5}}\n"
        "search:\n  objectives: [macs]\n  space:\n"
        "    stages.0.criterion: [l1_norm]\n"
        "    stages.0.allocation.amount: {low: 0.5, high: 1.0}\n"
    )
    with pytest.raises(RecipeInvalid) as caught:
        read_recipe(file)
    [mistake] = caught.value.mistakes
    assert (mistake.field, mistake.line) == (f"search.space.{AMOUNT}", 7)
    # The same for what the server finds, which names it by one dotted path.
    file.write_text(file.read_text().replace("1.0", "0.9"))
    [mistake] = read_recipe(file).mistakes({f"search.space.{AMOUNT}": "too much"}).mistakes
    assert mistake.line == 7
