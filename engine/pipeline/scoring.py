"""What a prune stage's criterion may look at, and what it cannot judge."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from secateur.recipe import PruneStage, ScoreStage, Scoring
from secateur.recipe_criterion import DEFAULT_SCORING_LR
from secateur.report import Frozen
from torch import Tensor

from engine.errors import CriterionDoesNotFit
from engine.evidence import Evidence
from engine.masks import maskable
from engine.pipeline.setup import Workbench
from engine.scores import criterion, element_saliency
from engine.torchscript.program import Program


def evidence_for(
    bench: Workbench,
    stage: PruneStage | ScoreStage,
    seed: int,
    field: str,
    *,
    masks: Mapping[str, Tensor] = MappingProxyType({}),
    movement: Mapping[str, Tensor] | None = None,
) -> Evidence:
    """The example, and samples of the training split where the criterion needs them.

    Args:
        bench: of the job.
        stage: whose criterion judges.
        seed: decides which samples.
        field: path of the stage in the recipe.
        masks: that hold, on the CPU.
        movement: what the training before this round has accumulated, if any.

    Raises:
        DatasetInvalid: it needs a split that the dataset lacks.
    """
    scoring = stage.scoring or Scoring()
    split = None
    if stage.needs_samples and bench.dataset is not None:
        targets = stage.needs_targets and bench.objective.needs_targets
        split = bench.dataset.require("train", f"{field}.criterion", targets=targets)
    return Evidence(
        example=tuple(bench.inputs),
        split=split,
        samples=scoring.samples,
        batch_size=scoring.batch_size,
        target=scoring.target or "labels",
        teacher=bench.original,
        seed=seed,
        device=bench.job.device,
        field=field,
        masks=masks,
        movement=movement,
        epochs=scoring.epochs or 1,
        rate=scoring.lr or DEFAULT_SCORING_LR,
        objective=bench.objective,
    )


@dataclass(frozen=True)
class JudgedElements:
    """What a criterion works out for single weights.

    Attributes:
        saliency: by weight; None where the criterion scores weights alone.
        frozen: weights that it cannot judge, which stay whole.
    """

    saliency: dict[str, Tensor] | None
    frozen: list[Frozen]


def judge_elements(
    bench: Workbench,
    program: Program,
    stage: PruneStage | ScoreStage,
    seed: int,
    field: str,
    *,
    masks: Mapping[str, Tensor] = MappingProxyType({}),
    movement: Mapping[str, Tensor] | None = None,
) -> JudgedElements:
    """Run the criterion on the weights that element pruning works on.

    Args: as of `evidence_for`.
    """
    judge = criterion(stage.criterion)
    if judge.saliency is None:
        return JudgedElements(None, [])
    evidence = evidence_for(bench, stage, seed, field, masks=masks, movement=movement)
    saliency = element_saliency(program, judge, evidence)
    weights = maskable(program, stage.exclude)
    lacking = [name for name in weights if name not in (saliency or {})]
    return JudgedElements(saliency, not_judged(program, stage, lacking))


def not_judged(
    program: Program, stage: PruneStage | ScoreStage, names: Collection[str]
) -> list[Frozen]:
    """The weights of these names, which a criterion cannot judge and which stay whole."""
    weights, lacking = program.parameters(), criterion(stage.criterion).lacking
    return [
        Frozen(
            layer=name.rpartition(".")[0] or name,
            op=stage.criterion,
            reason=f"the weight `{name}` is not masked: {lacking}",
            channels=weights[name].numel(),
        )
        for name in names
    ]


def in_stage_criterion(error: CriterionDoesNotFit, field: str) -> CriterionDoesNotFit:
    """The same error with the path of the recipe field in full."""
    return CriterionDoesNotFit(error.title, hint=error.hint, where=f"{field}.{error.where}")
