"""Planning: what the first prune stage would remove, without training or saving anything."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from secateur.recipe import PruneStage, entries
from secateur.report import Frozen, TargetReport

from engine.errors import CriterionDoesNotFit, NothingPruned, TargetUnreachable
from engine.job import JobInput
from engine.masks import prune_elements
from engine.measure.macs import count_macs
from engine.measure.size import nonzero_count, parameter_count, weights_of
from engine.patterns import pattern_dimensions
from engine.pipeline.element_target import settle, unmasked
from engine.pipeline.layers import judging_inputs, plan_layers
from engine.pipeline.masking import planned_scores
from engine.pipeline.prune import in_stage, plan_channels
from engine.pipeline.scoring import JudgedElements, evidence_for, in_stage_criterion, judge_elements
from engine.pipeline.setup import Workbench, prepare
from engine.pipeline.targets import aim_of, in_stage_target, is_reached, reached
from engine.scores.groups import group_keys
from engine.seeds import derive
from engine.torchscript.program import Program


def plan(job: JobInput) -> dict[str, Any]:
    """The plan of the first prune stage, carried to its full amount at once.

    Parameters and MACs are those of the program that the plan gives, not an estimate; an
    iterative schedule may choose other channels of the same number once it has trained.

    Raises:
        EngineError: the same as a compress job would raise.
    """
    bench = prepare(job)
    index, stage = next(
        (index, stage)
        for index, stage in enumerate(bench.recipe.stages)
        if isinstance(stage, PruneStage)
    )
    if stage.contest is not None:
        # A plan trains nothing, so it cannot know who wins: the first in order stands for all.
        stage = next(own.stage for own in entries(stage) if own.stage is not None)
    seed = derive(bench.recipe.seed, "prune", index, 1)
    try:
        if stage.granularity in ("element", "n_m"):
            return _elements(bench, index, stage, seed)
        if stage.granularity == "layer":
            return _layers(bench, index, stage, seed)
        return _channels(bench, index, stage, seed)
    except NothingPruned as error:
        raise in_stage(error, f"recipe.stages.{index}") from error
    except CriterionDoesNotFit as error:
        raise in_stage_criterion(error, f"recipe.stages.{index}") from error
    except TargetUnreachable as error:
        raise in_stage_target(error, f"recipe.stages.{index}") from error


def _channels(bench: Workbench, index: int, stage: PruneStage, seed: int) -> dict[str, Any]:
    scans = stage.allocation.distribution == "sensitivity"
    judged = judging_inputs(bench, bench.original) if scans else None
    targets: dict[int, TargetReport] = {}
    aim = aim_of(bench, bench.original, stage, index, targets)
    planned = plan_channels(
        bench.original,
        stage,
        bench.inputs,
        seed=seed,
        judged=judged,
        evidence=evidence_for(bench, stage, seed, f"recipe.stages.{index}"),
        aim=aim,
    )
    predicted = planned.compacted or bench.original
    reached(bench, predicted, stage, index, targets, aim=aim)
    coupling, removed = planned.coupling, planned.plan.by_group
    owner = np.full(coupling.component_count, -1, dtype=np.int64)
    for number, group in enumerate(coupling.groups):
        owner[group.components] = number
    members: list[list[str]] = [[] for _ in coupling.groups]
    for item in coupling.slices:
        for number in np.unique(owner[item.component[item.component >= 0]]):
            members[number].append(f"{item.tensor} (dimension {item.dim}, {item.role})")
    groups = [
        {
            "name": key,
            "channels": len(group.components),
            "removed": removed[key],
            "kept": len(group.components) - removed[key],
            "members": own,
        }
        for key, group, own in zip(
            group_keys(coupling.groups), coupling.groups, members, strict=True
        )
    ]
    return {
        **_costs(bench, index, stage, predicted),
        **_aimed(targets.get(index)),
        "groups": groups,
        "frozen": [item.model_dump() for item in planned.frozen],
        "mixed_by": coupling.mixed_by,
    }


def _layers(bench: Workbench, index: int, stage: PruneStage, seed: int) -> dict[str, Any]:
    judged = judging_inputs(bench, bench.original)
    targets: dict[int, TargetReport] = {}
    aim = aim_of(bench, bench.original, stage, index, targets)
    planned = plan_layers(bench.original, stage, bench.inputs, judged, seed=seed, aim=aim)
    choice = planned.choice
    gone = {*choice.chosen, *choice.inside}
    weights = weights_of(bench.original)
    groups = [
        {
            "name": branch.name,
            "layers": 1,
            "removed": int(branch in gone),
            "kept": int(branch not in gone),
            # Alone, and when it goes after others: infinite where the program fails without it.
            "score": _finite(choice.first[branch]),
            "score_when_removed": _finite(choice.chosen.get(branch)),
            "parameters": sum(weights[name].numel() for name in branch.weights if name in weights),
            "members": list(branch.weights),
        }
        for branch in planned.branches
    ]
    smaller = planned.removal.program if planned.removal is not None else bench.original
    reached(bench, smaller, stage, index, targets, aim=aim)
    return {
        **_costs(bench, index, stage, smaller),
        **_aimed(targets.get(index)),
        "groups": groups,
        "frozen": [item.model_dump() for item in planned.frozen],
        "mixed_by": [],
    }


def _finite(score: float | None) -> float | None:
    """JSON has no infinity."""
    return score if score is not None and isfinite(score) else None


def _elements(bench: Workbench, index: int, stage: PruneStage, seed: int) -> dict[str, Any]:
    report = None
    if stage.allocation.target is not None:
        report, amount = settle(bench, bench.original, {}, stage, index)
        stage = stage.model_copy(update={"allocation": amount})
    masked = bench.original.twin()
    scores = planned_scores(bench, stage)
    # Where weights are compared with initial ones, the criterion has nothing else to look at.
    judged = (
        judge_elements(bench, masked, stage, seed, f"recipe.stages.{index}")
        if scores is None
        else JudgedElements(None, [])
    )
    dimensions: dict[str, int] | None = None
    whole: list[Frozen] = []
    if stage.granularity == "n_m":
        dimensions, whole = pattern_dimensions(masked, stage, bench.inputs)
    masks, removed = prune_elements(
        masked,
        {},
        stage,
        seed=seed,
        dimensions=dimensions,
        saliency=judged.saliency,
        score_of=scores,
    )
    if removed == 0:
        raise NothingPruned(
            "the plan removes nothing: the amount rounds to no weight",
            hint="raise the amount",
            where="allocation",
        )
    if report is not None:
        report.reached = unmasked(masked, masks)
        report.matched = is_reached(report)
    groups = [
        {
            "name": name,
            "weights": mask.numel(),
            "removed": int((~mask).sum()),
            "kept": int(mask.sum()),
        }
        for name, mask in masks.items()
    ]
    return {
        **_costs(bench, index, stage, masked),
        **_aimed(report),
        "groups": groups,
        "frozen": [item.model_dump() for item in (*judged.frozen, *whole)],
        "mixed_by": [],
    }


def _aimed(target: TargetReport | None) -> dict[str, Any]:
    """Asked and reached, where the stage aims at a cost."""
    return {} if target is None else {"target": target.model_dump(exclude={"final"})}


def _costs(bench: Workbench, index: int, stage: PruneStage, predicted: Program) -> dict[str, Any]:
    def costs(program: Program) -> dict[str, int]:
        weights = weights_of(program)
        return {
            "parameters": parameter_count(weights),
            "nonzero_parameters": nonzero_count(weights),
            "macs": count_macs(program, bench.inputs),
        }

    return {
        "stage": index,
        "granularity": stage.granularity,
        "criterion": stage.criterion,
        "before": costs(bench.original),
        "predicted": costs(predicted),
    }
