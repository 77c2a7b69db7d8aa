"""The recipe's literals, the catalogue and the page say the same."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from secateur import recipe, recipe_exports, recipe_objective
from secateur.methods import METHODS, schema_of
from secateur.recipe_lottery import TICKET_CRITERIA
from secateur.resources import Method

from docs import generate_methods
from engine import scores
from engine.exports.registry import EXPORTERS

BY_NAME = {method.name: method for method in METHODS}


ALONE: dict[str, Any] = {
    "amount": 0.5, "count": 1, "threshold": 0.5, "quality": 0.5, "layers": {"head": 0.5},
    "target": {"of": "params", "share": 0.5},
}  # fmt: skip
"""Allocations that are a field of their own, with a value."""


def _literals(model: type[BaseModel], field: str) -> set[str]:
    return set(get_args(model.model_fields[field].annotation))


ACCEPTED: dict[str, set[str]] = {
    # A second way out, after single weights.
    "granularity": set(get_args(recipe.Granularity)) | {"remove_dead"},
    "criterion": set(get_args(recipe.Criterion)),
    # What a stage accepts beside the criteria.
    "tournament": set(get_args(recipe.PruneStage.model_fields["criterion"].annotation))
    - set(get_args(recipe.Criterion)),
    # `of` is no way to allocate; it spells out what the amounts count.
    "allocation": set(get_args(recipe.Scope))
    | set(get_args(recipe.Distribution))
    | (set(recipe.Allocation.model_fields) - {"scope", "distribution", "of"}),
    "schedule": {
        name
        for schedule in get_args(get_args(recipe.Schedule)[0])
        for name in _literals(schedule, "kind")
    },
    "training": _literals(recipe.Optimizer, "kind")
    | _literals(recipe.FinetuneOptions, "lr_schedule")
    | {f"batch_norm_{mode}" for mode in _literals(recipe.FinetuneOptions, "batch_norm")}
    | {f"keep_{which}" for which in _literals(recipe.FinetuneOptions, "keep")}
    | {f"dropout_{mode}" for mode in _literals(recipe.FinetuneOptions, "dropout")}
    # `bn_scale` is also a criterion, which has the name.
    | (set(recipe.Penalty.model_fields) - {"bn_scale"} | {"bn_scale_penalty"})
    | {"label_smoothing", "warmup_epochs", "freeze", "distillation"}
    | {f"distillation_{field}" for field in {"features"} & set(recipe.Distillation.model_fields)}
    | {f"distillation_{kind}" for kind in _literals(recipe.Distillation, "kind") - {"soft_targets"}}
    | {
        "clip_norm",
        "clip_value",
        "accumulate",
        "precision",
        "channels_last",
        "ema",
        "early_stopping",
    }
    | _literals(recipe.RecalibrateStage, "stage")
    | {"lr_auto"},
    "quantization": {
        name
        for scheme in get_args(get_args(recipe.QuantizeStage)[0])
        for name in _literals(scheme, "scheme")
    },
    "baseline": _literals(recipe.Baseline, "kind"),
    "scan": _literals(recipe.ScoreStage, "measure"),
    # `random` is also a criterion, which has the name.
    "sampler": _literals(recipe.Search, "sampler") - {"random"} | {"random_search"},
    # Some names are those of other methods.
    "loss": {f"loss_{name}" for name in get_args(recipe_objective.LossName)},
    "metric": {f"metric_{name}" for name in get_args(recipe_objective.MetricName)},
    "export": set(get_args(recipe_exports.ExportFormat)),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_catalogue_names_exactly_what_a_recipe_accepts(kind: str) -> None:
    listed = [method.name for method in METHODS if method.kind == kind]
    assert sorted(listed) == sorted(ACCEPTED[kind])


def test_engine_registers_exactly_the_criteria_listed() -> None:
    listed = [method.name for method in METHODS if method.kind == "criterion"]
    assert sorted(listed) == list(scores.names())


def test_engine_writes_exactly_the_formats_listed() -> None:
    listed = [method.name for method in METHODS if method.kind == "export"]
    assert sorted(listed) == sorted([*EXPORTERS, "torchscript"])


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(METHODS)


def test_page_is_what_the_generator_writes() -> None:
    assert generate_methods.PAGE.read_text(encoding="utf-8") == generate_methods.page(), (
        "run `python -m docs.generate_methods`"
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_page_has_an_entry_with_the_source_of(method: Method) -> None:
    page = generate_methods.PAGE.read_text(encoding="utf-8")
    entry = page.split(f"### `{method.name}`\n", 1)[1].split("\n### ", 1)[0]
    assert method.formula in entry
    assert method.source in entry


def _pinned(method: Method) -> dict[str, Any]:
    """The fields whose value makes this method and no other."""
    properties: dict[str, Any] = method.schema_["properties"]
    return {name: field["const"] for name, field in properties.items() if "const" in field}


def _objective(method: Method, fields: dict[str, Any]) -> dict[str, Any]:
    """An objective of this loss, or of a loss that this metric judges."""
    name = method.name.removeprefix("metric_")
    if method.kind == "loss":
        return fields
    direction = {"higher_is_better": True} if name == "module" else {}
    loss = next(loss for loss, fitting in recipe_objective.FITTING.items() if name in fitting)
    return {"loss": loss, **direction, **fields}


def _training(method: Method, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a training where the method's belong."""
    if method.name == "distillation_features":
        return {"distillation": {"features": [{"layer": "layer2"} | fields]}}
    if method.name.startswith("distillation"):
        return {"distillation": fields}
    return {"optimizer": fields} if {"kind", "lr"} & set(fields) else fields


def _of_its_own(method: Method, prune: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A recipe of a job of another type."""
    if method.kind == "scan":
        return {"stages": [{"stage": "score", **fields}]}
    if method.kind == "quantization":
        # A budget has no default.
        budget = {"budget": {"bytes": 0.2}} if method.name == "mixed_precision" else {}
        return {"stages": [prune, {"stage": "quantize", **budget, **fields}]}
    space = {"stages.0.allocation.amount": [0.25, 0.5]}
    return {"stages": [prune], "search": {"space": space, "objectives": ["macs"], **fields}}


def _recipe_naming(method: Method, fields: dict[str, Any]) -> dict[str, Any]:
    """A whole recipe that says `fields` where the method's kind belongs."""
    prune: dict[str, Any] = {"stage": "prune", "allocation": {"amount": 0.5}}
    finetune: dict[str, Any] = {"stage": "finetune"}
    if method.kind == "allocation":
        prune["allocation"] = {"amount": 0.5, **fields}
        if method.name in ALONE:
            prune["allocation"] = {method.name: ALONE[method.name]}
            prune["granularity"] = "element"
    elif method.kind == "schedule":
        required = set(method.schema_.get("required", []))
        # A rewinding point has no default.
        point = {"rewind_step": 1} if method.name == "imp_rewind" else {}
        prune["schedule"] = {**point, **fields} | {name: {} for name in required & {"finetune"}}
        if method.name == "rigl":
            prune["granularity"] = "element"
    elif method.name == "remove_dead":
        prune.update(fields, remove_dead=True)
    elif method.name == "n_m":
        prune = {"stage": "prune", "n": 2, "m": 4, **fields}
    elif method.kind in ("loss", "metric"):
        return {"stages": [prune], "objective": _objective(method, fields)}
    elif method.kind == "training":
        finetune.update(_training(method, fields))
    elif method.kind in ("scan", "sampler", "quantization"):
        return _of_its_own(method, prune, fields)
    elif method.kind in ("export", "baseline"):
        return {"stages": [prune, finetune], f"{method.kind}s": [fields]}
    else:
        prune.update(fields)
        if method.name in TICKET_CRITERIA:
            prune["schedule"] = {"kind": "imp"}
    return {"stages": [prune, finetune]}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_recipe_naming_it_is_valid_and_a_misspelt_one_is_not(method: Method) -> None:
    pinned = _pinned(method)
    assert recipe.Recipe.model_validate(_recipe_naming(method, pinned))

    for name in pinned:
        misspelt = {**pinned, name: f"{pinned[name]}x"}
        with pytest.raises(ValidationError, match=f"{pinned[name]}"):
            recipe.Recipe.model_validate(_recipe_naming(method, misspelt))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_schema_refers_only_to_what_it_carries(method: Method) -> None:
    text = json.dumps(method.schema_)
    for reference in re.findall(r'"#/\$defs/(\w+)"', text):
        assert reference in method.schema_["$defs"]


def test_a_schema_cannot_pin_a_value_the_recipe_refuses() -> None:
    with pytest.raises(ValueError, match="l1_norm"):
        schema_of(recipe.PruneStage, [], criterion="l3_norm")
