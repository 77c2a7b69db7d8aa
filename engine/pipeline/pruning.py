"""A prune step of a job: plan, remove, certify, and carry the masks along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.recipe import PruneStage
from torch import Tensor

from engine.errors import CriterionDoesNotFit, NothingPruned, TargetUnreachable
from engine.job import Listener
from engine.masks import prune_elements
from engine.patterns import pattern_dimensions
from engine.pipeline.checkpoint import JobState
from engine.pipeline.dead_neurons import remove_dead
from engine.pipeline.layers import certified_layers, judging_inputs, plan_layers, remaining_masks
from engine.pipeline.masked import measure_zeroed
from engine.pipeline.masking import gone_back, score_of
from engine.pipeline.prune import certified, compact_masks, in_stage, plan_channels
from engine.pipeline.random_control import count_removed
from engine.pipeline.scoring import JudgedElements, evidence_for, in_stage_criterion, judge_elements
from engine.pipeline.search import Aim
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import PruneStep
from engine.pipeline.targets import aim_of, in_stage_target, reached
from engine.seeds import derive
from engine.selection.channels import Originals
from engine.selection.sensitivity import RATIOS


def prune(
    bench: Workbench, state: JobState, step: PruneStep, listener: Listener
) -> tuple[int, list[str]]:
    """Carry out a round; how much went, and the names of layers that did.

    Raises:
        EngineError: nothing can be removed, or the result cannot be certified.
    """
    seed = derive(bench.recipe.seed, "prune", step.stage_index, step.round_number)
    try:
        if step.stage.granularity in ("element", "n_m"):
            return _elements(bench, state, step, seed, listener), []
        if step.stage.granularity == "layer":
            return _layers(bench, state, step, seed, listener)
        return _channels(bench, state, step, seed, listener), []
    except NothingPruned as error:
        raise in_stage(error, step.field) from error
    except CriterionDoesNotFit as error:
        raise in_stage_criterion(error, step.field) from error
    except TargetUnreachable as error:
        raise in_stage_target(error, step.field) from error


def _elements(
    bench: Workbench, state: JobState, step: PruneStep, seed: int, listener: Listener
) -> int:
    # A twin, so that the program of the last checkpoint stays as it was.
    program = state.program.twin()
    totals = state.totals.setdefault(step.stage_index, {})
    scores = score_of(state, step)
    judged = (
        judge_elements(
            bench,
            program,
            step.stage,
            seed,
            step.field,
            masks=state.masks,
            movement=_moved(state, step),
        )
        if scores is None
        else JudgedElements(None, [])
    )
    state.frozen.extend(item for item in judged.frozen if item not in state.frozen)
    dimensions = None
    if step.stage.granularity == "n_m":
        dimensions, whole = pattern_dimensions(program, step.stage, bench.inputs)
        state.frozen.extend(item for item in whole if item not in state.frozen)
    masks, removed = prune_elements(
        program,
        state.masks,
        step.stage,
        seed=seed,
        round_number=step.round_number,
        rounds=step.rounds,
        totals=totals,
        dimensions=dimensions,
        saliency=judged.saliency,
        score_of=scores,
    )
    state.program, state.masks = gone_back(bench, state, step, program, masks)
    gone = removed + sum(
        report.removed for report in state.reports if report.stage_index == step.stage_index
    )
    if gone == 0 and step.round_number == step.rounds:
        raise NothingPruned(
            "the plan removes nothing: the amount rounds to no weight, or those weights are "
            "masked already",
            hint="raise the amount; amounts count against all weights, masked ones included"
            if not step.stage.allocation.by_layer
            else "raise what the allocation says; it counts against all weights, masked included",
            where="allocation",
        )
    if step.stage.remove_dead and step.round_number == step.rounds:
        take_out_dead(bench, state, (step.stage_index, step.stage), step.label, listener)
    return removed


def _moved(state: JobState, step: PruneStep) -> Mapping[str, Tensor] | None:
    """What the training before this round accumulated; the next one accumulates its own."""
    return state.movement.pop(step.stage_index, None)


def take_out_dead(
    bench: Workbench,
    state: JobState,
    numbered: tuple[int, PruneStage],
    label: str,
    listener: Listener,
) -> None:
    """Neurons that the masks of a stage left without input or output go physically.

    Args: numbered: the stage behind its place in the recipe.
    """
    index, stage = numbered
    done = remove_dead(state.program, state.masks, stage, bench.inputs)
    listener.log(
        f"{label}: {sum(done.by_group.values())} dead neurons went, "
        f"{done.folded} of them into a bias",
        dead=done.by_group,
    )
    state.certificates.extend(done.certificates)
    count_removed(state, index, done.by_group)
    state.program, state.masks = done.program, done.masks


def _channels(
    bench: Workbench, state: JobState, step: PruneStep, seed: int, listener: Listener
) -> int:
    known = state.originals.get(step.stage_index)
    aim = _aim(bench, state, step)
    planned = plan_channels(
        state.program,
        step.stage,
        bench.inputs,
        seed=seed,
        originals=None if known is None else Originals(known),
        round_number=step.round_number,
        rounds=step.rounds,
        totals=state.totals.get(step.stage_index),
        judged=_judged(bench, state, step),
        evidence=evidence_for(
            bench, step.stage, seed, step.field, masks=state.masks, movement=_moved(state, step)
        ),
        aim=aim,
    )
    smaller = planned.compacted or state.program
    reached(bench, smaller, step.stage, step.stage_index, state.targets, aim=aim)
    if planned.curves:
        listener.log(
            f"{step.label}: drift of the outputs by layer when {list(RATIOS)} of it is gone",
            drift=planned.curves,
            totals=dict(planned.totals or {}),
        )
    state.originals[step.stage_index] = dict(planned.originals.by_group)
    if planned.totals is not None:
        state.totals[step.stage_index] = dict(planned.totals)
    if known is None:
        new = [item for item in planned.frozen if item not in state.frozen]
        state.frozen.extend(new)
    if planned.compacted is None:
        listener.log(f"{step.label}: nothing to remove yet")
        return 0
    certificate = certified(state.program, planned, bench.inputs)
    if certificate is not None:
        state.certificates.append(certificate)
        if certificate.detail and certificate.detail not in state.warnings:
            state.warnings.append(certificate.detail)
    state.masked = measure_zeroed(bench, state.program, planned, step, listener)
    state.masks = compact_masks(state.masks, state.program, planned, bench.inputs)
    state.program = planned.compacted
    count_removed(state, step.stage_index, planned.plan.by_group)
    return int(planned.plan.removed.size)


def _aim(bench: Workbench, state: JobState, step: PruneStep) -> Aim | None:
    """What the round aims at; None where an amount, or an earlier round, has said what goes."""
    return aim_of(
        bench,
        state.program,
        step.stage,
        step.stage_index,
        state.targets,
        decided=step.stage_index in state.totals,
        round_number=step.round_number,
        rounds=step.rounds,
    )


def _judged(bench: Workbench, state: JobState, step: PruneStep) -> tuple[Any, ...] | None:
    """What a sensitivity scan measures on, in the round that needs one."""
    asked = step.stage.allocation.distribution == "sensitivity"
    if not asked or step.stage_index in state.totals:
        return None
    return judging_inputs(bench, state.program)


def _layers(
    bench: Workbench, state: JobState, step: PruneStep, seed: int, listener: Listener
) -> tuple[int, list[str]]:
    known = state.originals.get(step.stage_index)
    aim = _aim(bench, state, step)
    planned = plan_layers(
        state.program,
        step.stage,
        bench.inputs,
        judging_inputs(bench, state.program),
        seed=seed,
        total=None if known is None else len(known),
        gone=sum(
            report.removed for report in state.reports if report.stage_index == step.stage_index
        ),
        round_number=step.round_number,
        rounds=step.rounds,
        aim=aim,
        totals=state.totals.get(step.stage_index),
    )
    smaller = state.program if planned.removal is None else planned.removal.program
    reached(bench, smaller, step.stage, step.stage_index, state.targets, aim=aim)
    if planned.totals is not None:
        state.totals[step.stage_index] = dict(planned.totals)
    if known is None:
        state.originals[step.stage_index] = {branch.name: 1 for branch in planned.branches}
        state.frozen.extend(item for item in planned.frozen if item not in state.frozen)
    if planned.removal is None:
        listener.log(f"{step.label}: nothing to remove yet")
        return 0, []
    certificate = certified_layers(state.program, planned, bench.inputs)
    if certificate is not None:
        state.certificates.append(certificate)
    choice = planned.choice
    names = [branch.name for branch in (*choice.chosen, *choice.inside)]
    listener.log(
        f"{step.label}: removed {', '.join(names)}",
        scores={branch.name: score for branch, score in choice.chosen.items()},
    )
    state.masks = remaining_masks(state.masks, planned.removal)
    state.program = planned.removal.program
    count_removed(state, step.stage_index, {"layers": choice.removed})
    return choice.removed, names
