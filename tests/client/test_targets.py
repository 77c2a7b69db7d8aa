"""What a recipe may say of a cost to reach, and what is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from secateur.recipe import PruneStage

MACS = {"of": "macs", "share": 0.5}


def stage(target: dict[str, Any], **fields: Any) -> PruneStage:
    allocation = {"target": target} | fields.pop("allocation", {})
    return PruneStage.model_validate({"stage": "prune", "allocation": allocation} | fields)


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (MACS, {"allocation": {"scope": "global"}}),
        (MACS, {"allocation": {"distribution": "erdos_renyi"}}),
        (MACS, {"allocation": {"distribution": "sensitivity"}, "granularity": "head"}),
        ({"of": "bytes", "at_most": 2_000_000}, {"granularity": "layer"}),
        ({"of": "latency_ms", "at_most": 3.5, "batch_size": 1}, {"round_to": 8}),
        ({"of": "params", "share": 0.3, "tolerance": 0.0}, {"granularity": "element"}),
        (MACS, {"criterion": "tournament"}),
        ({"of": "bytes", "share": 0.5}, {"criterion": "tournament", "tournament": {"macs": 0.4}}),
    ],
)
def test_accepted_and_the_same_when_written_out(
    target: dict[str, Any], fields: dict[str, Any]
) -> None:
    given = stage(target, **fields)
    assert PruneStage.model_validate(given.model_dump(mode="json")) == given


FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"of": "macs"}, {}, "exactly one of `share`"),
    ({"of": "macs", "share": 0.5, "at_most": 10}, {}, "exactly one of `share`"),
    ({"of": "macs", "share": 1.0}, {}, "less than 1"),
    ({"of": "macs", "at_most": 0}, {}, "greater than 0"),
    ({"of": "flops", "share": 0.5}, {}, "'params', 'macs', 'bytes' or 'latency_ms'"),
    ({"of": "macs", "share": 0.5, "tolerance": 0.6}, {}, "less than or equal to 0.5"),
    ({"of": "macs", "share": 0.5, "batch_size": 1}, {}, "belongs to `of: latency_ms`"),
    (MACS, {"allocation": {"amount": 0.5}}, "`amount` and `target` are given"),
    (MACS, {"allocation": {"layers": {"a": 0.5}}}, "not with `target`"),
    (MACS, {"allocation": {"scope": "global", "distribution": "erdos_renyi"}}, "scope: global"),
    (MACS, {"granularity": "element"}, "masks leave every multiplication where it is"),
    ({"of": "bytes", "share": 0.5}, {"granularity": "element"}, "a file of the same size"),
    ({"of": "latency_ms", "share": 0.5}, {"granularity": "element"}, "multiply zeros"),
    ({"of": "params", "share": 0.5}, {"granularity": "n_m", "n": 2, "m": 4}, "`n_m` removes 2 of"),
    (MACS, {"schedule": {"kind": "agp", "initial": 0.5}}, r"takes away \(0.5\)"),
    (
        {"of": "params", "share": 0.5},
        {"schedule": {"kind": "supermask", "removed": "init"}},
        "values that no mask holds",
    ),
    (
        MACS,
        {"criterion": "tournament", "tournament": {"macs": 0.4}},
        "leave `tournament.macs` out",
    ),
    ({"of": "params", "share": 0.5}, {"criterion": "tournament"}, "say in `tournament.macs`"),
]


@pytest.mark.parametrize(("target", "fields", "words"), FAULTS)
def test_refused(target: dict[str, Any], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        stage(target, **fields)
