"""The random control within a job: the same number of units out of every layer, drawn by lot.

A criterion is worth something only if what it chose does better than what chance chooses. The
control takes from the upload, in every layer, as many units as the result has lost there,

    |R_random(l)| = |R_result(l)|   for every layer l,

each subset of that size being equally likely, and trains what is left as the recipe trains (Gale,
Elsen & Hooker 2019, "The State of Sparsity in Deep Neural Networks"; Mittal et al. 2018,
"Recovering from Random Pruning"). Channels, heads and layers go first, stage by stage; then single
weights are masked to the counts of the result's own masks, which were counted in its final shapes.
Everything goes at once, before the training: rounds are part of what is compared with chance.

After a ticket schedule the control starts from the same initial weights as the ticket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from secateur.recipe import Allocation, OneShot, PruneStage
from torch import Tensor

from engine.lottery.baselines import BaselineStep
from engine.lottery.rewinding import rewind
from engine.lottery.steps import TicketSchedule
from engine.masks import Masks, apply_masks, maskable, masked_count, prune_elements
from engine.patterns import pattern_dimensions
from engine.pipeline.checkpoint import JobState
from engine.pipeline.layers import plan_layers
from engine.pipeline.prune import plan_channels
from engine.pipeline.setup import Workbench
from engine.seeds import derive, generator
from engine.torchscript.program import Program
from engine.training.run import TrainingRun


@dataclass
class RandomlyPruned:
    """The control before it is trained.

    Attributes:
        program: the upload without the units that were drawn.
        masks: of single weights, that hold in it.
        removed: units gone by layer: channels by group, weights by tensor, and residual branches
            as `layers`.
    """

    program: Program
    masks: Masks = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)


def randomly_pruned(bench: Workbench, state: JobState, step: BaselineStep) -> RandomlyPruned:
    """Draw the control; the same one whenever it is asked for.

    Args:
        bench: of the job.
        state: after the recipe's stages.
        step: the control.
    """
    seed = derive(bench.recipe.seed, "random control", step.index)
    control = RandomlyPruned(bench.original.twin())
    for index, counts in sorted(state.removed.items()):
        stage = bench.recipe.stages[index]
        if isinstance(stage, PruneStage):
            _remove_units(control, stage, counts, bench, derive(seed, index))
    _mask_weights(control, state.masks, bench, seed)
    for index, initial in sorted(state.lottery.initial.items()):
        stage = bench.recipe.stages[index]
        if isinstance(stage, PruneStage) and isinstance(stage.schedule, TicketSchedule):
            control.program = rewind(control.program, initial, control.masks)
    return control


def as_recovered(
    bench: Workbench, state: JobState, step: BaselineStep, run: TrainingRun, masks: Masks
) -> TrainingRun:
    """The run with the control's masks; from step k where the ticket was trained from there."""
    trained = bench.recipe.trainings()
    reports = list(state.lottery.reports.values())
    first = 0
    if step.baseline.training is None and len(trained) == 1 and reports:
        first = reports[-1].rewound_to_step
    return replace(run, masks=masks, first_step=first)


def count_removed(state: JobState, stage_index: int, by_group: Mapping[str, int]) -> None:
    """Keep how many units a prune step took from every layer, for a control to take as many."""
    known = state.removed.setdefault(stage_index, {})
    for name, count in by_group.items():
        if count:
            known[name] = known.get(name, 0) + count


def _remove_units(
    control: RandomlyPruned,
    stage: PruneStage,
    counts: Mapping[str, int],
    bench: Workbench,
    seed: int,
) -> None:
    """Channels, heads or layers of one stage; the neurons that `remove_dead` took are channels."""
    total = sum(counts.values())
    plain = {
        "criterion": "random",
        "aggregate": "sum",
        "normalize": "none",
        "scoring": None,
        "schedule": OneShot(),
        "round_to": None,
        "allocation": Allocation(count=total, scope="global"),
    }
    if stage.granularity == "layer":
        drawn = stage.model_copy(update=plain)
        found = plan_layers(control.program, drawn, bench.inputs, bench.inputs, seed=seed)
        if found.removal is not None:
            control.program = found.removal.program
            gone = control.removed.get("layers", 0)
            control.removed["layers"] = gone + found.choice.removed
        return
    plain["allocation"] = Allocation(count=total, scope="local")
    if stage.granularity == "element":
        plain["granularity"] = "channel"
    planned = plan_channels(
        control.program,
        stage.model_copy(update=plain),
        bench.inputs,
        seed=seed,
        totals=counts,
    )
    if planned.compacted is None:
        return
    control.program = planned.compacted
    for name, count in planned.plan.by_group.items():
        if count:
            control.removed[name] = control.removed.get(name, 0) + count


def _mask_weights(
    control: RandomlyPruned, masks: Mapping[str, Tensor], bench: Workbench, seed: int
) -> None:
    wanted = {name: masked_count({name: mask}) for name, mask in masks.items()}
    for index, stage in enumerate(bench.recipe.stages):
        if isinstance(stage, PruneStage) and stage.granularity == "n_m":
            dimensions, _ = pattern_dimensions(control.program, stage, bench.inputs)
            drawn = stage.model_copy(
                update={"criterion": "random", "schedule": OneShot(), "normalize": "none"}
            )
            control.masks, _ = prune_elements(
                control.program,
                control.masks,
                drawn,
                seed=derive(seed, "pattern", index),
                dimensions=dimensions,
            )
    weights = maskable(control.program, ())
    for name, count in wanted.items():
        if name not in weights:
            continue
        held = control.masks.get(name, torch.ones(weights[name].shape, dtype=torch.bool))
        control.masks[name] = _masked_more(held, count, generator(seed, "weights", name))
        control.removed[name] = masked_count({name: control.masks[name]})
    apply_masks(control.program.parameters(), control.masks)


def _masked_more(mask: Tensor, count: int, noise: torch.Generator) -> Tensor:
    """The mask with kept weights drawn by lot and masked until `count` are."""
    flat = mask.reshape(-1).clone()
    kept = flat.nonzero().squeeze(1)
    more = max(count - (flat.numel() - kept.numel()), 0)
    flat[kept[torch.randperm(kept.numel(), generator=noise)[:more]]] = False
    return flat.reshape(mask.shape)
