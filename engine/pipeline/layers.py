"""One prune step on layers: find residual branches, judge, choose, remove, certify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from secateur.recipe import PruneStage
from secateur.report import Certificate, Frozen

from engine.calling import copies
from engine.comparison import failure
from engine.data.batches import batches, shuffled
from engine.errors import EngineError, NothingPruned
from engine.layers.branches import Branch, find_branches
from engine.layers.certificate import certify_removal
from engine.layers.choice import Choice, choose
from engine.layers.removal import BranchNeeded, Removal, remove_branches
from engine.layers.scores import branch_scores
from engine.layers.without import run_without
from engine.masks import Masks
from engine.pipeline.layer_search import LayerSearch, remembered
from engine.pipeline.search import Aim
from engine.pipeline.setup import Workbench
from engine.seeds import generator
from engine.selection.schedule import removed_after, removed_of
from engine.structure import at_batch_size
from engine.torchscript.program import Program

JUDGED = 32
"""Samples of the dataset that branches are judged on."""
_STAYS = "what is no residual branch stays"


@dataclass(frozen=True)
class PlannedLayers:
    """A plan, carried out.

    Attributes:
        branches: all that could be removed before the plan.
        choice: what goes.
        removal: the smaller program, or None when this round removes nothing.
        frozen: branches that cannot be removed.
        totals: by name, those that go in the whole stage, where a search has decided on them.
    """

    branches: list[Branch]
    choice: Choice
    removal: Removal | None
    frozen: list[Frozen]
    totals: Mapping[str, int] | None = None


def judging_inputs(bench: Workbench, program: Program) -> tuple[Any, ...]:
    """What branches are judged on: samples of the dataset, or else the example.

    Validation samples where there are any, as for the example: no weight is fitted to them. A
    program that takes no other number of samples than its example's gets that many.
    """
    if bench.dataset is None:
        return bench.inputs
    split = bench.dataset.examples
    order = shuffled(split.samples, generator(bench.recipe.seed, "layers"))[:JUDGED]
    batch = next(iter(batches(split, JUDGED, device=bench.job.device, order=order)))
    try:
        run_without(program.twin(), [], batch.inputs)
    except (EngineError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return at_batch_size(batch.inputs, bench.example_batch)
    return batch.inputs


def plan_layers(
    program: Program,
    stage: PruneStage,
    inputs: Sequence[Any],
    judged: Sequence[Any],
    *,
    seed: int,
    total: int | None = None,
    gone: int = 0,
    round_number: int = 1,
    rounds: int = 1,
    aim: Aim | None = None,
    totals: Mapping[str, int] | None = None,
) -> PlannedLayers:
    """Choose the branches of a round and remove them.

    Args:
        inputs: the example.
        judged: inputs that effects are measured on.
        seed: for random scores.
        total: branches before the stage; None in its first round.
        gone: branches that earlier rounds removed.
        aim: the cost that this round, or the whole stage, is to reach; None where the allocation
            says how many go, or `totals` are known.
        totals: by name, the branches that go in the whole stage, as its first round found them.

    Raises:
        TargetUnreachable: no removal reaches the aim.
        NothingPruned: the last round is over and the stage removed nothing; says why.
    """
    found = find_branches(program, copies(inputs), stage.exclude)
    branches, frozen = list(found.removable), list(found.frozen)
    while True:
        units = len(branches) if total is None else total
        scores = branch_scores(stage.criterion, program, branches, judged, seed)
        decided = totals
        try:
            if aim is not None:
                scores = remembered(scores)
                search = LayerSearch(
                    program, inputs, len(branches), frozen, _STAYS, branches=branches, scores=scores
                )
                choice = aim.find(search)
                if aim.whole_stage:
                    decided = dict.fromkeys(search.units(choice), 1)
            if decided is not None:
                going = [branch for branch in branches if branch.name in decided]
                total_gone = removed_of(len(decided), units, round_number, rounds, stage.schedule)
                choice = choose(going, total_gone - gone, scores)
            elif aim is None:
                allocation, schedule = stage.allocation, stage.schedule
                total_gone = removed_after(allocation, units, round_number, rounds, schedule)
                choice = choose(branches, total_gone - gone, scores)
            removal = (
                remove_branches(program, choice.chosen, copies(inputs)) if choice.chosen else None
            )
        except BranchNeeded as error:
            # Only the surgery of several branches together can show this.
            branches = [branch for branch in branches if branch.name != error.where]
            frozen.append(_frozen(error.where, error.title))
            continue
        if removal is None and round_number == rounds and gone == 0:
            raise _nothing(stage, branches, choice, frozen, units)
        failing = "the program gives no finite numbers without it"
        frozen.extend(_frozen(branch.name, failing) for branch in choice.fatal)
        return PlannedLayers(branches, choice, removal, frozen, decided)


def certified_layers(
    program: Program, planned: PlannedLayers, inputs: Sequence[Any]
) -> Certificate | None:
    """The certificate of a round; None where it removed nothing.

    Raises:
        CertificateFailed: the compact program does not equal the original past its branches.
    """
    if planned.removal is None:
        return None
    certificate = certify_removal(
        program, planned.removal.program, list(planned.choice.chosen), copies(inputs)
    )
    if not certificate.passed:
        raise failure(
            "the compact model does not equal the original without the removed branches",
            certificate,
        )
    return certificate


def remaining_masks(masks: Masks, removal: Removal) -> Masks:
    """Element masks without those of weights that are gone."""
    return {name: mask for name, mask in masks.items() if name not in removal.emptied}


def _frozen(layer: str, reason: str) -> Frozen:
    return Frozen(layer=layer, op="add", reason=reason, channels=1)


def _nothing(
    stage: PruneStage,
    branches: Sequence[Branch],
    choice: Choice,
    frozen: Sequence[Frozen],
    units: int,
) -> NothingPruned:
    """Say why a plan is empty, from the most basic reason to the least."""
    if len(choice.fatal) < len(branches):
        smallest = min(1 + len(branch.inside) for branch in branches)
        return NothingPruned(
            f"the plan removes nothing: amount {stage.allocation.amount} of {units} residual "
            "branches rounds to none"
            if smallest == 1
            else f"the plan removes nothing: the smallest branch holds {smallest - 1} others, and "
            "fewer are to go",
            hint=f"raise `amount` (one branch is {smallest / units:.2g}), or give a `count`",
            where="allocation",
        )
    reasons = [*frozen, *(_frozen(item.name, "the program fails without it") for item in branches)]
    listed = "; ".join(f"{item.layer}: {item.reason}" for item in reasons[:5])
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return NothingPruned(
        "the plan removes nothing: no residual branch of the model can be removed",
        hint=f"these cannot be removed: {listed}{more}"
        if reasons
        else "the model adds nothing to what it was computed from; a shortcut with a layer of its "
        "own does not count. Remove channels instead (`granularity: channel`)",
        where="exclude" if stage.exclude else "granularity",
    )
