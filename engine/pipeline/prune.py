"""One prune step on channels: couple, score, select, compact, certify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import PruneStage
from secateur.report import Certificate, Frozen
from torch import Tensor

from engine.calling import copies
from engine.certify import certify
from engine.compaction import compact
from engine.compaction.conflict import CompactionConflict
from engine.comparison import failure
from engine.coupling import Coupling, couple
from engine.errors import NothingPruned
from engine.evidence import Evidence
from engine.masks import Masks
from engine.pipeline.channel_plans import ChannelPlans
from engine.pipeline.frozen_hint import frozen_hint
from engine.pipeline.search import Aim
from engine.pipeline.sensitivity import scan_channels
from engine.scores import component_scores, criterion, unscored
from engine.selection.channels import ChannelPlan, Originals, Target, select_channels
from engine.selection.sensitivity import Curves
from engine.selection.spread import Spread
from engine.selection.units import nothing_by_layer
from engine.torchscript.program import Program

_MOST_CONFLICTS = 32
"""How often a plan is revised because a removal cannot be expressed in the graph."""


@dataclass(frozen=True)
class PlannedChannels:
    """A plan that the graph can express, carried out.

    Attributes:
        coupling: what it was planned on.
        plan: the chosen components.
        originals: channels before the stage.
        compacted: the smaller program, or None when this round removes nothing.
        frozen: channels that cannot be removed, conflicts included.
        totals: channels each group loses in the whole stage (see `Target`).
        curves: what a sensitivity scan found in this round, by group.
    """

    coupling: Coupling
    plan: ChannelPlan
    originals: Originals
    compacted: Program | None
    frozen: list[Frozen]
    totals: Mapping[str, int] | None = None
    curves: Curves = field(default_factory=dict)


def plan_channels(
    program: Program,
    stage: PruneStage,
    inputs: Sequence[Any],
    *,
    seed: int,
    originals: Originals | None = None,
    round_number: int = 1,
    rounds: int = 1,
    totals: Mapping[str, int] | None = None,
    judged: Sequence[Any] | None = None,
    evidence: Evidence | None = None,
    aim: Aim | None = None,
) -> PlannedChannels:
    """Choose the channels of a round and compact the program.

    Args:
        inputs: the example.
        originals: channels before the stage; None in its first round.
        totals: channels each group loses in the whole stage, as its first round found them.
        judged: inputs that drifts are measured on; the example when None.

    Where the graph cannot express a removal, the components that meet there are frozen and the
    round is planned again.

    Args:
        evidence: what the criterion may look at besides weights.
        aim: the cost that this round, or the whole stage where `totals` share it out, is to reach;
            None where the allocation says how much goes, or `totals` are known.

    Raises:
        CriterionDoesNotFit: the criterion finds nothing to look at.
        TargetUnreachable: no removal reaches the aim.
        NothingPruned: the last round is over and the stage removed nothing; says why.
    """
    coupling = couple(
        program,
        copies(inputs),
        exclude=stage.exclude,
        granularity="head" if stage.granularity == "head" else "channel",
    )
    before = originals or Originals.of(coupling.groups)
    tensors = coupling.methods.join(program).tensors()
    judge = criterion(stage.criterion)
    scores = component_scores(
        coupling,
        tensors,
        judge,
        aggregate=stage.aggregate,
        normalize=stage.normalize,
        slices=stage.slices,
        seed=seed,
        program=program,
        evidence=evidence,
    )
    curves: Curves = {}
    if stage.allocation.distribution == "sensitivity" and totals is None:
        curves = scan_channels(program, coupling, scores, judged or inputs)
    plans = ChannelPlans(program, stage, inputs, Spread(coupling, tensors, before, curves))
    frozen = [*coupling.frozen, *unscored(coupling, scores, judge)]
    if totals is None and aim is None:
        totals = plans.spread.totals(stage.allocation, scores)
    if stage.allocation.target is not None and totals is not None:
        target = plans.target(totals, (round_number, rounds))
    else:
        target = Target(stage.allocation, before, round_number, rounds, totals, stage.schedule)
    for _ in range(_MOST_CONFLICTS):
        try:
            if aim is not None:
                found = plans.totals(aim.find(plans.search(scores, frozen)))
                totals = found if aim.whole_stage else None
                target = plans.target(found, (round_number, rounds) if totals else (1, 1))
            plan = select_channels(coupling, scores, target, round_to=stage.round_to)
            if plan.removed.size == 0:
                break
            compacted = compact(program, coupling, plan.removed, copies(inputs))
        except CompactionConflict as conflict:
            free = conflict.components[~np.isnan(scores[conflict.components])]
            if free.size == 0:
                raise
            scores[free] = np.nan
            frozen.append(
                Frozen(
                    layer=conflict.where,
                    op="compact",
                    reason=conflict.title,
                    channels=int(free.size),
                )
            )
            continue
        return PlannedChannels(coupling, plan, before, compacted, frozen, totals, curves)
    else:
        raise NothingPruned(
            f"{_MOST_CONFLICTS} plans in a row could not be expressed in the program's graph",
            hint=frozen_hint(frozen),
            where="stages",
        )
    gone = before.total - sum(len(group.components) for group in coupling.groups)
    if round_number == rounds and gone <= 0:
        raise _nothing(stage, coupling, scores, target, frozen)
    return PlannedChannels(coupling, plan, before, None, frozen, totals, curves)


def certified(
    program: Program, planned: PlannedChannels, inputs: Sequence[Any]
) -> Certificate | None:
    """The certificate of a round; None where it removed nothing.

    Raises:
        CertificateFailed: the compact program does not equal the masked-dense one.
    """
    if planned.compacted is None:
        return None
    certificate = certify(
        program, planned.compacted, planned.coupling, planned.plan.removed, copies(inputs)
    )
    if not certificate.passed:
        raise failure(
            "the compact model does not equal the original with the removed channels zeroed",
            certificate,
        )
    return certificate


def compact_masks(
    masks: Mapping[str, Tensor],
    program: Program,
    planned: PlannedChannels,
    inputs: Sequence[Any],
) -> Masks:
    """The masks of the compacted program: they go the way of the weights they belong to."""
    if not masks or planned.compacted is None:
        return dict(masks)
    carrier = program.twin()
    for name, mask in masks.items():
        weight = carrier.parameters()[name]
        carrier.set_tensor(name, mask.to(device=weight.device, dtype=weight.dtype))
    smaller = compact(carrier, planned.coupling, planned.plan.removed, copies(inputs)).parameters()
    return {name: (smaller[name] != 0).detach().cpu() for name in masks if name in smaller}


def merge_certificates(certificates: Sequence[Certificate], *, masked: bool) -> Certificate:
    """One certificate for all prune steps: as good as the worst of them.

    Args:
        certificates: of the steps.
        masked: whether single weights were zeroed.
    """
    if not certificates:
        return Certificate(
            passed=True,
            kind="exact",
            max_relative_error=0.0,
            mixed_by=[],
            batch_sizes=[],
            reloaded_in_fresh_process=False,
            detail="no channel was removed: the result is the original with single weights zeroed"
            if masked
            else "nothing was removed",
        )
    restricted = [
        certificate.restricted_error
        for certificate in certificates
        if certificate.restricted_error is not None
    ]
    details = dict.fromkeys(certificate.detail for certificate in certificates)
    return Certificate(
        passed=all(certificate.passed for certificate in certificates),
        kind="exact" if all(item.kind == "exact" for item in certificates) else "approximate",
        max_relative_error=max(certificate.max_relative_error for certificate in certificates),
        restricted_error=max(restricted) if restricted else None,
        mixed_by=list(dict.fromkeys(name for item in certificates for name in item.mixed_by)),
        batch_sizes=sorted({size for item in certificates for size in item.batch_sizes}),
        reloaded_in_fresh_process=False,
        detail="; ".join(detail for detail in details if detail),
    )


def _nothing(
    stage: PruneStage,
    coupling: Coupling,
    scores: NDArray[np.float64],
    target: Target,
    frozen: Sequence[Frozen],
) -> NothingPruned:
    """Say why a plan is empty, from the most basic reason to the least."""
    sizes = [int((~np.isnan(scores[group.components])).sum()) for group in coupling.groups]
    if sum(sizes) == 0:
        return NothingPruned(
            "the plan removes nothing: no attention head of the model can be removed"
            if stage.granularity == "head"
            else "the plan removes nothing: no channel of the model can be removed",
            hint=frozen_hint(frozen),
            where="exclude" if stage.exclude else "allocation",
        )
    without_rounding = select_channels(coupling, scores, target)
    if stage.round_to is not None and without_rounding.removed.size:
        return NothingPruned(
            f"the plan removes nothing: `round_to: {stage.round_to}` takes back all "
            f"{without_rounding.removed.size} channels that would go",
            hint=f"lower `round_to` (the largest layer has {max(sizes)} channels), or raise "
            "the amount",
            where="round_to",
        )
    if max(sizes) == 1:
        return NothingPruned(
            "the plan removes nothing: every layer that can be pruned has one channel left",
            hint=frozen_hint(frozen),
            where="allocation",
        )
    if target.totals is not None:
        return nothing_by_layer(stage.allocation, scores)
    everywhere = stage.allocation.scope == "global"
    channels = sum(sizes) if everywhere else max(sizes)
    return NothingPruned(
        f"the plan removes nothing: amount {stage.allocation.amount} of {channels} channels "
        "rounds to none",
        hint=f"raise `amount` (one channel is {1 / channels:.2g})"
        + ("" if everywhere else f", or use `scope: global` ({sum(sizes)} channels in all)"),
        where="allocation.amount",
    )


def in_stage(error: NothingPruned, field: str) -> NothingPruned:
    """The same error with the path of the recipe field in full."""
    return NothingPruned(error.title, hint=error.hint, where=f"{field}.{error.where}")
