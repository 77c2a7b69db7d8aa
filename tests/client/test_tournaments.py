"""Recipes with a tournament, and its table on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console
from secateur.cli.tables import tournaments
from secateur.recipe import PruneStage, Recipe, entries
from secateur.report import Contestant, TournamentReport

from tests.reporting.samples import contested_report, small_report

HALF = {"stage": "prune", "criterion": "tournament", "allocation": {"amount": 0.5}}


def stage(**fields: Any) -> PruneStage:
    return PruneStage.model_validate({**HALF, **fields})


CHANNELS = [
    "l1_norm", "l2_norm", "geometric_median", "bn_scale", "lamp", "apoz", "mean_activation",
    "wanda", "gradient", "taylor", "hessian", "snip", "grasp", "movement", "synflow", "random",
]  # fmt: skip
WEIGHTS = [
    name
    for name in CHANNELS
    if name not in ("geometric_median", "bn_scale", "apoz", "mean_activation")
]


@pytest.mark.parametrize(
    ("granularity", "names"), [("channel", CHANNELS), ("head", CHANNELS), ("element", WEIGHTS)]
)
def test_all_are_those_that_judge_at_the_granularity(granularity: str, names: list[str]) -> None:
    found = list(entries(stage(granularity=granularity)))
    assert [entry.criterion for entry in found] == names
    assert all(entry.stage is not None for entry in found)


def test_slices_are_those_of_the_stage_where_a_contestant_has_a_choice() -> None:
    given = stage(slices="reading", tournament={"criteria": ["taylor", "bn_scale", "apoz"]})
    found = [entry.stage.slices for entry in entries(given) if entry.stage is not None]
    assert found == ["reading", "producing", "producing"]


def test_slices_of_single_weights_are_refused() -> None:
    with pytest.raises(ValidationError, match="granularity is `element`: leave `slices` out"):
        stage(granularity="element", slices="all")


def test_every_contestant_has_the_stage_as_a_recipe_that_names_it() -> None:
    given = stage(
        allocation={"scope": "global", "amount": 0.3},
        schedule={"kind": "iterative", "rounds": 3, "finetune": {"penalty": {"l1": 0.1}}},
        exclude=["head"],
        round_to=4,
        scoring={"samples": 8, "target": "teacher"},
        tournament={"criteria": ["snip", "apoz", "l1_norm"]},
    )
    plain = given.model_dump(exclude={"tournament", "normalize", "scoring", "criterion"})
    scored = {"samples": 8, "batch_size": 32}
    expected = [
        PruneStage.model_validate(plain | fields)
        for fields in (
            {"criterion": "snip", "scoring": scored | {"target": "teacher"}},
            {"criterion": "apoz", "scoring": scored},
            {"criterion": "l1_norm"},
        )
    ]
    assert [entry.stage for entry in entries(given)] == expected
    assert [own.normalize for own in expected] == ["none", "mean", "mean"]
    everywhere = stage(normalize="max", tournament={"criteria": ["snip", "l1_norm"]})
    assert [own.stage.normalize for own in entries(everywhere) if own.stage] == ["max", "max"]


def test_what_the_recipe_rules_out_is_no_contestant_of_all() -> None:
    reasons = {entry.criterion: entry.reason for entry in entries(stage(aggregate="max"))}
    assert "`aggregate` must be `sum`" in reasons.pop("taylor")
    assert set(reasons.values()) == {""}


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"granularity": "layer"}, "", "channels, heads and single weights; granularity is `layer`"),
    ({"granularity": "n_m", "n": 2, "m": 4, "allocation": None}, "", "granularity is `n_m`"),
    ({"allocation": {"threshold": 0.5}}, "", "`allocation.threshold` has none"),
    ({"allocation": {"layers": {"a": 0.5}}}, "", "`allocation.layers` has none"),
    (
        {"allocation": {"quality": 0.5}, "granularity": "element"},
        "",
        "`allocation.quality` has none",
    ),
    (
        {"allocation": {"amount": 0.5, "distribution": "sensitivity"}},
        "",
        "`allocation.distribution: sensitivity` has none",
    ),
    ({"schedule": {"kind": "imp"}}, "", "judges weights that have been trained since"),
    (
        {"granularity": "element", "schedule": {"kind": "agp", "finetune": {"epochs": 20}}},
        "",
        "`schedule.kind: agp`",
    ),
    ({"granularity": "element", "tournament": {"macs": 0.5}}, "", "masks of single weights leave"),
    ({"criterion": "taylor", "tournament": {}}, "", "of no use to `criterion: taylor`"),
    ({"tournament": {"criteria": ["random"]}}, "tournament.criteria.list", "at least 2 items"),
    ({"tournament": {"criteria": "some"}}, "tournament.criteria.all", "should be 'all'"),
    ({"tournament": {"criteria": ["random", "l3"]}}, "tournament.criteria.list.1", "'l1_norm'"),
    ({"tournament": {"criteria": ["lamp", "random", "lamp"]}}, "tournament", "`lamp` twice"),
    ({"tournament": {"recovery": None, "recovery_steps": 3}}, "tournament", "`recovery` is null"),
    ({"tournament": {"macs": 1.0}}, "tournament.macs", "less than 1"),
    ({"tournament": {"tolerance": 0}}, "tournament.tolerance", "greater than 0"),
    (
        {"granularity": "element", "tournament": {"criteria": ["l1_norm", "bn_scale"]}},
        "",
        "`tournament.criteria.1`: `criterion: bn_scale` judges channels and heads",
    ),
    (
        {"tournament": {"criteria": ["output_effect", "l1_norm"]}},
        "",
        "`tournament.criteria.0`: `criterion: output_effect` judges whole layers",
    ),
    (
        {"tournament": {"criteria": ["l1_norm", "large_init"]}},
        "",
        "`tournament.criteria.1`: `criterion: large_init` compares single weights",
    ),
    (
        {"aggregate": "l2", "tournament": {"criteria": ["taylor", "l1_norm"]}},
        "",
        "`tournament.criteria.0`: `criterion: taylor` adds up",
    ),
]


@pytest.mark.parametrize(("fields", "place", "words"), FAULTS)
def test_what_cannot_be_held_is_refused(fields: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        stage(**fields)
    [error] = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == place
    assert words in error["msg"]


def test_a_recipe_written_out_in_full_is_the_same() -> None:
    given = Recipe.model_validate({"stages": [HALF | {"tournament": {"macs": 0.5}}]})
    assert Recipe.model_validate(given.model_dump(mode="json")) == given


def test_what_it_needs() -> None:
    trained = Recipe.model_validate({"stages": [HALF]})
    assert trained.needs_dataset() == "stages.0.criterion"
    assert trained.needs_targets() == "stages.0.tournament.recovery"
    assert trained.needs_validation() == "stages.0.criterion"
    ranked = Recipe.model_validate({"stages": [HALF | {"tournament": {"recovery": None}}]})
    assert ranked.needs_dataset() == ranked.needs_validation() == "stages.0.criterion"
    assert ranked.needs_targets() is None
    frozen = {"tournament": {"recovery": {"freeze": ["head"]}}}
    patterns = dict(Recipe.model_validate({"stages": [HALF | frozen]}).layer_patterns())
    assert patterns["stages.0.tournament.recovery.freeze"] == ["head"]


def test_the_table_of_the_command_line() -> None:
    console = Console(width=140)
    with console.capture() as captured:
        for part in tournaments(contested_report()):
            console.print(part)
    lines = captured.get().splitlines()
    assert any("Tournament of stage 1" in line for line in lines)
    [winner] = [line for line in lines if "taylor (winner)" in line]
    for cell in ("46.7 %", "208,000", "30,100", "338/360", "355/360", "0.0912", "1.5 s"):
        assert cell in winner
    assert "bn_scale did not compete: no [BatchNorm]" in captured.get()
    assert list(tournaments(small_report())) == []


def test_reports_keep_what_they_hold() -> None:
    [held] = contested_report().tournaments
    assert TournamentReport.model_validate_json(held.model_dump_json()) == held
    assert held.contestants[2] == Contestant(criterion="bn_scale", reason="no [BatchNorm] <b>")
