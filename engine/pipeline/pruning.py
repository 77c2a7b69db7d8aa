"""A prune step of a job: plan, remove, certify, and carry the masks along."""

from __future__ import annotations

from engine.errors import NothingPruned
from engine.job import Listener
from engine.masks import prune_elements
from engine.pipeline.checkpoint import JobState
from engine.pipeline.layers import certified_layers, judging_inputs, plan_layers, remaining_masks
from engine.pipeline.masking import gone_back, score_of
from engine.pipeline.prune import certified, compact_masks, in_stage, plan_channels
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import PruneStep
from engine.seeds import derive
from engine.selection.channels import Originals


def prune(
    bench: Workbench, state: JobState, step: PruneStep, listener: Listener
) -> tuple[int, list[str]]:
    """Carry out a round; how much went, and the names of layers that did.

    Raises:
        EngineError: nothing can be removed, or the result cannot be certified.
    """
    seed = derive(bench.recipe.seed, "prune", step.stage_index, step.round_number)
    try:
        if step.stage.granularity == "element":
            return _elements(bench, state, step, seed), []
        if step.stage.granularity == "layer":
            return _layers(bench, state, step, seed, listener)
        return _channels(bench, state, step, seed, listener), []
    except NothingPruned as error:
        raise in_stage(error, step.field) from error


def _elements(bench: Workbench, state: JobState, step: PruneStep, seed: int) -> int:
    # A twin, so that the program of the last checkpoint stays as it was.
    program = state.program.twin()
    masks, removed = prune_elements(
        program,
        state.masks,
        step.stage,
        seed=seed,
        round_number=step.round_number,
        rounds=step.rounds,
        score_of=score_of(state, step),
    )
    state.program, state.masks = gone_back(bench, state, step, program, masks)
    gone = removed + sum(
        report.removed for report in state.reports if report.stage_index == step.stage_index
    )
    if gone == 0 and step.round_number == step.rounds:
        raise NothingPruned(
            "the plan removes nothing: the amount rounds to no weight, or those weights are "
            "masked already",
            hint="raise the amount; amounts count against all weights, masked ones included",
            where="allocation",
        )
    return removed


def _channels(
    bench: Workbench, state: JobState, step: PruneStep, seed: int, listener: Listener
) -> int:
    known = state.originals.get(step.stage_index)
    planned = plan_channels(
        state.program,
        step.stage,
        bench.inputs,
        seed=seed,
        originals=None if known is None else Originals(known),
        round_number=step.round_number,
        rounds=step.rounds,
    )
    state.originals[step.stage_index] = dict(planned.originals.by_group)
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
    state.masks = compact_masks(state.masks, state.program, planned, bench.inputs)
    state.program = planned.compacted
    return int(planned.plan.removed.size)


def _layers(
    bench: Workbench, state: JobState, step: PruneStep, seed: int, listener: Listener
) -> tuple[int, list[str]]:
    known = state.originals.get(step.stage_index)
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
    )
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
    return choice.removed, names
