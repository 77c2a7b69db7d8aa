"""What a score stage scans: the layers of a model with their scores, and the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.recipe import ScoreStage
from secateur.report import Frozen
from torch import Tensor

from engine.calling import copies
from engine.coupling import couple
from engine.data.splits import Split
from engine.errors import EngineError, WeightsNotNumbers
from engine.masks import maskable
from engine.not_a_number import holds_nan
from engine.pipeline.scoring import evidence_for, judge_elements
from engine.pipeline.setup import Workbench
from engine.scan.layers import ScannedLayer, channel_layers, weight_layers
from engine.scan.measuring import drawn
from engine.scores import component_scores, criterion, element_scores, unscored
from engine.seeds import derive


class NothingToScan(EngineError):
    """No layer can lose anything, or every ratio rounds to nothing."""

    type = "nothing-to-scan"


@dataclass(frozen=True)
class Scanned:
    """What a score stage works on.

    Attributes:
        layers: in the order of the model; each can lose something.
        frozen: what must stay, with the reason.
    """

    layers: list[ScannedLayer]
    frozen: list[Frozen]


def scanned(bench: Workbench, stage: ScoreStage, index: int) -> Scanned:
    """Find the layers and score them.

    Raises:
        CriterionDoesNotFit: the criterion finds nothing to look at.
        NothingToScan: nothing can be removed, or the ratios are too small for every layer.
        WeightsNotNumbers: a weight holds NaN.
    """
    seed = derive(bench.recipe.seed, "score", index)
    field = f"recipe.stages.{index}"
    find = _elements if stage.granularity == "element" else _channels
    found = find(bench, stage, seed, field)
    layers = [layer for layer in found.layers if layer.removable > 0]
    units = {"channel": "channel", "head": "attention head", "element": "weight"}[stage.granularity]
    if not layers:
        listed = "; ".join(f"{item.layer}: {item.reason}" for item in found.frozen[:5])
        excluded = f"`exclude` {list(stage.exclude)} leaves no other" if stage.exclude else ""
        raise NothingToScan(
            f"no {units} of the model can be removed, so there is nothing to scan",
            hint=f"these cannot be removed: {listed}"
            if listed
            else excluded
            or f"the model has no layer with two {units}s or more; choose another `granularity`",
            where=f"{field}.exclude" if stage.exclude else f"{field}.granularity",
        )
    if not any(layer.count(ratio) for layer in layers for ratio in stage.ratios):
        largest = max(layers, key=lambda layer: layer.units)
        raise NothingToScan(
            f"every ratio rounds to no {units}: the largest layer, `{largest.name}`, has "
            f"{largest.units}",
            hint=f"ask for a ratio of {1 / largest.units:.2g} or more",
            where=f"{field}.ratios",
        )
    return Scanned(layers, found.frozen)


def _channels(bench: Workbench, stage: ScoreStage, seed: int, field: str) -> Scanned:
    program = bench.original
    coupling = couple(
        program,
        copies(bench.inputs),
        exclude=stage.exclude,
        granularity="head" if stage.granularity == "head" else "channel",
    )
    judge = criterion(stage.criterion)
    scores = component_scores(
        coupling,
        coupling.methods.join(program).tensors(),
        judge,
        aggregate=stage.aggregate,
        slices=stage.slices,
        # Within one layer no scale changes the order.
        normalize="none",
        seed=seed,
        program=program,
        evidence=evidence_for(bench, stage, seed, field),
    )
    frozen = [*coupling.frozen, *unscored(coupling, scores, judge)]
    return Scanned(channel_layers(program, coupling, scores), frozen)


def _elements(bench: Workbench, stage: ScoreStage, seed: int, field: str) -> Scanned:
    program = bench.original
    weights = maskable(program, stage.exclude)
    for name, weight in weights.items():
        if holds_nan(weight):
            raise WeightsNotNumbers(
                f"the weight `{name}` holds NaN, which cannot be ranked among numbers",
                hint="upload a model that was trained to numbers, or `exclude` the layer",
                where=name,
            )
    judged = judge_elements(bench, program, stage, seed, field)
    saliency: Mapping[str, Tensor] | None = judged.saliency
    if saliency is not None:
        weights = {name: weight for name, weight in weights.items() if name in saliency}
    judge = criterion(stage.criterion)
    scores = {
        name: element_scores(
            name,
            weight,
            judge,
            normalize="none",
            seed=seed,
            saliency=None if saliency is None else saliency[name],
        )
        for name, weight in weights.items()
    }
    return Scanned(weight_layers(program, weights, scores), judged.frozen)


def samples_of(bench: Workbench, stage: ScoreStage, index: int) -> Split | tuple[Any, ...]:
    """What a score stage measures on; the example where the job has no dataset.

    Raises:
        DatasetInvalid: the dataset lacks the split, or its targets.
    """
    if bench.dataset is None:
        return bench.inputs
    field = f"recipe.stages.{index}"
    split = (
        bench.dataset.require(
            stage.split, f"{field}.measure", targets=bench.objective.needs_targets
        )
        if stage.labelled
        else bench.dataset.require_inputs(stage.split, f"{field}.split")
    )
    return drawn(split, stage.samples, derive(bench.recipe.seed, "score", index))
