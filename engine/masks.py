"""Element masks: single weights held at zero.

A mask is a boolean tensor, True where the weight stays. While training it is applied in two
places: to the gradient before the optimiser's step, so that momentum never accumulates for a
removed weight, and to the weight after the step, because momentum from before the pruning and
decoupled decay move weights without a gradient. Together they keep removed weights at exactly
zero under every optimiser. How a training applies them is in `engine.training.bit_masks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path

import torch
from safetensors.torch import save_file
from secateur.recipe import PruneStage
from torch import Tensor

from engine.coupling.exclusion import match_layers
from engine.errors import NothingPruned, WeightsNotNumbers
from engine.not_a_number import holds_nan
from engine.scores import criterion, element_scores
from engine.selection.elements import select_elements
from engine.selection.n_m import select_pattern
from engine.selection.units import element_totals
from engine.torchscript.program import Program, memory_of

Masks = dict[str, Tensor]
_MASKED_SCORE = -inf
"""Below every score: what is masked already counts towards the amount first."""


def maskable(program: Program, exclude: Sequence[str]) -> dict[str, Tensor]:
    """The weights that element pruning works on: floating parameters of 2 or more dimensions.

    Biases and normalisation scales stay: they are few, and each one serves a whole channel.
    """
    excluded = match_layers(program.layer_names(), exclude)
    # A weight that two layers share stays whole when either is excluded.
    kept = {
        memory_of(tensor)
        for name, tensor in program.attributes().items()
        if name.rpartition(".")[0] in excluded
    }
    return {
        name: parameter
        for name, parameter in program.parameters().items()
        if parameter.dim() >= 2 and memory_of(parameter) not in kept
    }


def prune_elements(
    program: Program,
    masks: Mapping[str, Tensor],
    stage: PruneStage,
    *,
    seed: int,
    round_number: int = 1,
    rounds: int = 1,
    totals: dict[str, int] | None = None,
    dimensions: Mapping[str, int] | None = None,
    saliency: Mapping[str, Tensor] | None = None,
    score_of: Callable[[str, Tensor], Tensor] | None = None,
) -> tuple[Masks, int]:
    """Choose masks for this round and zero the weights they remove.

    Args:
        program: whose weights are zeroed.
        masks: that hold already.
        stage: of the recipe.
        seed: for random scores.
        round_number: this round, from 1.
        rounds: all rounds.
        totals: what each weight loses in the whole stage, where that differs from weight to
            weight by more than their sizes. The first round finds it and writes it here.
        dimensions: granularity `n_m`: the weights that get the pattern, with their dimension of
            inputs.
        saliency: what the criterion worked out for every weight it can judge, see
            `engine.scores.element_saliency`; other weights stay whole.
        score_of: scores a weight by its name and value; None for the stage's criterion alone.

    Returns:
        The masks of the whole program, earlier ones included, and how many weights went now.

    Raises:
        NothingPruned: no weight can be masked, or none is left to remove.
        WeightsNotNumbers: a weight holds NaN, which no score can rank.
    """
    weights = maskable(program, stage.exclude)
    if not weights:
        raise NothingPruned(
            "no weight can be masked",
            hint="element pruning works on parameters of two or more dimensions; `exclude` "
            f"{list(stage.exclude)} leaves none"
            if stage.exclude
            else "the program has no parameters of two or more dimensions",
            where="exclude",
        )
    if dimensions is not None:
        weights = {name: weights[name] for name in dimensions}
    judge = criterion(stage.criterion)
    scores = {}
    if saliency is not None:
        weights = {name: weight for name, weight in weights.items() if name in saliency}
        if not weights:
            raise NothingPruned(
                f"no weight can be masked: `{stage.criterion}` can judge none of them",
                hint=f"{judge.lacking}; {judge.remedy}",
                where="criterion",
            )
    for name, weight in weights.items():
        if holds_nan(weight):
            raise WeightsNotNumbers(
                f"the weight `{name}` holds NaN, which cannot be ranked among numbers",
                hint="upload a model that was trained to numbers",
                where=name,
            )
        if score_of is not None:
            score = score_of(name, weight).double()
        else:
            score = element_scores(
                name,
                weight,
                judge,
                normalize=stage.normalize,
                seed=seed,
                saliency=None if saliency is None else saliency[name],
            ).double()
        if name in masks:
            score = torch.where(masks[name], score, _MASKED_SCORE)
        scores[name] = score
    chosen = _chosen(
        stage,
        weights,
        scores,
        masks,
        round_number=round_number,
        rounds=rounds,
        totals=totals,
        dimensions=dimensions,
    )
    combined = dict(masks)
    for name, mask in chosen.items():
        combined[name] = mask & masks[name] if name in masks else mask
    removed = masked_count(combined) - masked_count(masks)
    apply_masks(program.parameters(), combined)
    return combined, removed


def _chosen(
    stage: PruneStage,
    weights: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    *,
    round_number: int,
    rounds: int,
    totals: dict[str, int] | None,
    dimensions: Mapping[str, int] | None,
) -> Masks:
    if dimensions is not None and stage.n is not None and stage.m is not None:
        return select_pattern(
            scores,
            dimensions,
            kept=stage.n,
            group=stage.m,
            round_number=round_number,
            rounds=rounds,
            schedule=stage.schedule,
        )
    known = None
    if stage.allocation.by_layer:
        known = totals or element_totals(stage.allocation, weights, scores, masks)
        if totals is not None:
            totals.update(known)
    return select_elements(
        scores,
        stage.allocation,
        round_number=round_number,
        rounds=rounds,
        totals=known,
        schedule=stage.schedule,
    )


def apply_masks(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Zero what is masked, for good."""
    with torch.no_grad():
        for name, mask in masks.items():
            # Filling, not multiplying: infinity times zero would be NaN.
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def save_masks(masks: Mapping[str, Tensor], path: Path) -> None:
    """Write the masks as a safetensors file of booleans, by parameter name."""
    save_file({name: mask.contiguous() for name, mask in masks.items()}, path)


def masked_count(masks: Mapping[str, Tensor]) -> int:
    """How many weights are held at zero."""
    return sum(int((~mask).sum()) for mask in masks.values())
