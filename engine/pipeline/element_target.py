r"""A number of parameters that single weights are masked down to.

What a mask costs is known from sizes alone. With P parameters in all, of which masks of earlier
stages hold :math:`m_l` of the :math:`u_l` weights of layer l at zero, an allocation that takes
:math:`n_l` of each leaves

.. math:: P - \sum_l \max(\min(n_l, u_l - 1), m_l)

that no mask holds, whatever the criterion. So the amount is settled once, before the first step of
the stage, and the stage then runs as if the recipe had named it: in one shot, in rounds, along a
ramp or towards a ticket.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from secateur.recipe import Allocation, PruneStage
from secateur.report import TargetReport
from torch import Tensor

from engine.costs.amounts import amounts_of
from engine.costs.reach import least_amount
from engine.errors import CriterionDoesNotFit, NothingPruned, TargetUnreachable
from engine.lottery.steps import TicketStep
from engine.masks import maskable, masked_count
from engine.measure.size import parameter_count, weights_of
from engine.pipeline.checkpoint import JobState
from engine.pipeline.prune import in_stage
from engine.pipeline.scoring import in_stage_criterion, judge_elements
from engine.pipeline.search import amount_of
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import FinetuneStep, PruneStep, Step, TournamentStep
from engine.pipeline.targets import begun, in_stage_target, is_reached
from engine.seeds import derive
from engine.selection.by_layer import Unit, totals
from engine.selection.schedule import final_count
from engine.torchscript.program import Program

_NONE = np.empty(0)
_PRUNING = (PruneStep, TournamentStep, TicketStep)


def with_amount(bench: Workbench, state: JobState, step: Step) -> Step:
    """The step with the amount that its stage's target amounts to; others as they are.

    The first step of the stage settles it, in the state.

    Raises:
        NothingPruned: no more weights than that are left as it is.
        TargetUnreachable: masks cannot bring their number down to it.
    """
    stage = _pruning(step)
    if stage is None or stage.allocation.target is None or stage.granularity != "element":
        return step
    index = step.stage_index
    if index not in state.amounts:
        frozen = step.options.freeze if isinstance(step, FinetuneStep) else []
        judging = stage.model_copy(update={"exclude": [*stage.exclude, *frozen]})
        try:
            found = settle(bench, state.program, state.masks, judging, index)
        except NothingPruned as error:
            raise in_stage(error, f"recipe.stages.{index}") from error
        except CriterionDoesNotFit as error:
            raise in_stage_criterion(error, f"recipe.stages.{index}") from error
        except TargetUnreachable as error:
            raise in_stage_target(error, f"recipe.stages.{index}") from error
        state.targets[index], state.amounts[index] = found
    settled = stage.model_copy(update={"allocation": state.amounts[index]})
    if isinstance(step, FinetuneStep):
        return replace(step, changing=settled)
    return replace(step, stage=settled) if isinstance(step, _PRUNING) else step


def settle(
    bench: Workbench, program: Program, masks: Mapping[str, Tensor], stage: PruneStage, index: int
) -> tuple[TargetReport, Allocation]:
    """The target of a stage and the amount that it amounts to.

    Args:
        bench: of the job.
        program: before the stage.
        masks: that hold in it.
        stage: of the recipe, with all excluded that it may not mask.
        index: of the stage.

    Raises: as `with_amount`, with fields of the stage.
    """
    report = begun(bench, program, stage, index, masked=masked_count(masks))
    weights = maskable(program, stage.exclude)
    names = _judged(bench, program, masks, stage, index)
    weights = {name: weight for name, weight in weights.items() if names is None or name in names}
    elsewhere = {name: mask for name, mask in masks.items() if name not in weights}
    others = unmasked(program, elsewhere)
    amounts = amounts_of(stage.allocation, [weight.numel() for weight in weights.values()])

    def left(amount: int) -> int:
        if amount == 0:
            return unmasked(program, masks)
        return others - _masked(amounts.at(amount), weights, masks)

    amount = least_amount(left, amounts.most, report.asked)
    if amount is None:
        least = amount_of("params", left(amounts.most))
        raise TargetUnreachable(
            f"the target cannot be reached: masks can bring the model down to {least} and no "
            f"further, and {amount_of('params', report.asked)} is asked for",
            hint=f"ask for {least} or more; biases, scales, one weight of every layer and what is "
            "excluded or cannot be judged are never masked",
            where="allocation.target",
        )
    return report, amounts.at(amount)


def note_masked(state: JobState, stage_index: int) -> None:
    """Keep the target of a stage on single weights up with the masks that hold."""
    if stage_index not in state.amounts:
        return
    report = state.targets[stage_index]
    report.reached = unmasked(state.program, state.masks)
    report.matched = is_reached(report)


def unmasked(program: Program, masks: Mapping[str, Tensor]) -> int:
    """Parameters that no mask holds at zero."""
    return parameter_count(weights_of(program)) - masked_count(masks)


def _masked(
    allocation: Allocation, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> int:
    """How many of the weights are masked once an allocation is carried out."""
    held = {name: masked_count({name: masks[name]}) if name in masks else 0 for name in weights}
    most = {name: weight.numel() - 1 for name, weight in weights.items()}
    if allocation.scope == "global":
        # What is masked already goes first in the one ranking.
        total = final_count(allocation, sum(weight.numel() for weight in weights.values()))
        return max(min(total, sum(most.values())), sum(held.values()))
    if allocation.by_layer:
        lost = totals(allocation, [_unit(name, weight) for name, weight in weights.items()])
    else:
        lost = {name: final_count(allocation, weight.numel()) for name, weight in weights.items()}
    return sum(max(min(lost[name], most[name]), held[name]) for name in weights)


def _unit(name: str, weight: Tensor) -> Unit:
    """A weight as a distribution by sizes sees it."""
    return Unit(name, [name], weight.numel(), [tuple(weight.shape)], _NONE, _NONE)


def _judged(
    bench: Workbench, program: Program, masks: Mapping[str, Tensor], stage: PruneStage, index: int
) -> Collection[str] | None:
    """The weights that the criterion can judge; None for all, and where only training tells."""
    if stage.contest is not None or stage.criterion == "movement":
        return None
    seed = derive(bench.recipe.seed, "prune", index, 1)
    field = f"recipe.stages.{index}"
    return judge_elements(bench, program.twin(), stage, seed, field, masks=masks).saliency


def _pruning(step: Step) -> PruneStage | None:
    if isinstance(step, FinetuneStep):
        return step.changing
    return step.stage if isinstance(step, _PRUNING) else None
