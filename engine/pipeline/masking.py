"""The masks of ticket stages within a job: what is masked, and what the kept weights become."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from secateur.recipe import Allocation, PruneStage, Supermask
from torch import Tensor

from engine.lottery.initial import load_initial
from engine.lottery.initialisation import reinitialise
from engine.lottery.learned_masks import MaskLogits
from engine.lottery.rewinding import rewind, snapshot, write
from engine.lottery.steps import TicketStep
from engine.lottery.supermask import supermasked
from engine.masks import Masks, apply_masks, maskable
from engine.pipeline.checkpoint import JobState
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import PruneStep
from engine.scores import criterion
from engine.scores.tickets import ticket_scores
from engine.seeds import derive
from engine.selection.schedule import final_count
from engine.torchscript.program import Program
from engine.training.run import Trained, TrainingRun

ScoreOf = Callable[[str, Tensor], Tensor]
_LEAST, _MOST = 0.001, 0.999
"""Bounds of the share that a learned mask starts with: at 0 and 1 its gradient vanishes."""


def score_of(state: JobState, step: PruneStep) -> ScoreOf | None:
    """How a ticket stage judges weights; None where its criterion looks at the weights alone."""
    logits = state.lottery.logits.get(step.stage_index)
    if logits is not None:
        return lambda name, _: logits[name].cpu()
    return _compared(state.lottery.initial.get(step.stage_index, {}), step.stage)


def planned_scores(bench: Workbench, stage: PruneStage) -> ScoreOf | None:
    """The same before any training: the upload is judged against the weights it begins with."""
    given = bench.job.initial
    initial = snapshot(bench.original) if given is None else load_initial(given, bench.original)
    return _compared(initial, stage)


def _compared(initial: Mapping[str, Tensor], stage: PruneStage) -> ScoreOf | None:
    judge = criterion(stage.criterion)
    if judge.of_tickets is None:
        return None
    return lambda name, weight: ticket_scores(
        initial[name], weight, judge, normalize=stage.normalize
    )


def gone_back(
    bench: Workbench, state: JobState, step: PruneStep, pruned: Program, masks: Masks
) -> tuple[Program, Masks]:
    """The pruned program with its survivors gone back, and the masks that later steps hold.

    Args:
        bench: of the job.
        state: still with the program before this round.
        step: any round on single weights.
        pruned: the program with the removed weights at zero.
        masks: of this round and earlier ones.
    """
    initial = state.lottery.initial.get(step.stage_index)
    if initial is None:
        return pruned, masks
    schedule = step.stage.schedule
    if not isinstance(schedule, Supermask):
        return rewind(pruned, initial, masks), masks
    final = state.program.parameters()
    fresh = state.program.twin()
    # A learned mask was learned with the running statistics of its training.
    kept = fresh.parameters() if schedule.mask == "learned" else fresh.attributes()
    write(fresh, {name: initial[name] for name in kept if name in initial})
    seed = derive(bench.recipe.seed, "supermask", step.stage_index)
    drawn: Mapping[str, Tensor] = initial
    if schedule.values == "reinitialised":
        drawn = reinitialise(fresh, bench.inputs, seed=seed).program.parameters()
    for name in maskable(fresh, step.stage.exclude):
        if name not in masks:
            continue
        values = supermasked(
            name,
            masks[name],
            schedule,
            initial=initial[name],
            final=final[name],
            drawn=drawn[name],
            seed=seed,
        )
        write(fresh, {name: values})
    apply_masks(fresh.parameters(), state.masks)
    return fresh, masks if schedule.removed == "zero" else state.masks


def learns_masks(
    state: JobState, step: TicketStep, run: TrainingRun
) -> Callable[[Mapping[str, Tensor]], torch.optim.Optimizer]:
    """What moves while a mask is learned."""
    weights = maskable(state.program, step.stage.exclude)
    initial = state.lottery.initial[step.stage_index]
    schedule = step.schedule

    def build(parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        return MaskLogits(
            parameters,
            {
                name: initial[name] * state.masks[name] if name in state.masks else initial[name]
                for name in weights
            },
            _kept(step.stage.allocation, weights),
            step.options.optimizer,
            seed=derive(run.seed, run.purpose),
            rescale=isinstance(schedule, Supermask) and schedule.rescale,
        )

    return build


def keep_learned(state: JobState, step: TicketStep, trained: Trained) -> None:
    """Take the logits out of the training that has ended."""
    state.lottery.logits[step.stage_index] = trained.optimizer["logits"]


def _kept(allocation: Allocation, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """The share of every weight tensor that is to stay."""
    total = sum(weight.numel() for weight in weights.values())
    shares = {}
    for name, weight in weights.items():
        units = weight.numel() if allocation.scope == "local" else total
        shares[name] = min(max(1 - final_count(allocation, units) / units, _LEAST), _MOST)
    return shares
