"""What a prune stage's criterion may look at, and what it cannot judge."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.recipe import PruneStage, ScoreStage, Scoring
from secateur.report import Frozen
from torch import Tensor

from engine.errors import CriterionDoesNotFit
from engine.evidence import Evidence
from engine.masks import maskable
from engine.pipeline.setup import Workbench
from engine.scores import criterion, element_saliency
from engine.torchscript.program import Program


def evidence_for(
    bench: Workbench, stage: PruneStage | ScoreStage, seed: int, field: str
) -> Evidence:
    """The example, and samples of the training split where the criterion needs them.

    Raises:
        DatasetInvalid: it needs a split that the dataset lacks.
    """
    scoring = stage.scoring or Scoring()
    split = None
    if stage.needs_samples and bench.dataset is not None:
        take = bench.dataset.require if stage.needs_targets else bench.dataset.require_inputs
        split = take("train", f"{field}.criterion")
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
    bench: Workbench, program: Program, stage: PruneStage | ScoreStage, seed: int, field: str
) -> JudgedElements:
    """Run the criterion on the weights that element pruning works on."""
    judge = criterion(stage.criterion)
    saliency = element_saliency(program, judge, evidence_for(bench, stage, seed, field))
    if saliency is None:
        return JudgedElements(None, [])
    weights = maskable(program, stage.exclude)
    return JudgedElements(
        saliency,
        [
            Frozen(
                layer=name.rpartition(".")[0] or name,
                op=stage.criterion,
                reason=f"the weight `{name}` is not masked: {judge.lacking}",
                channels=weight.numel(),
            )
            for name, weight in weights.items()
            if name not in saliency
        ],
    )


def in_stage_criterion(error: CriterionDoesNotFit, field: str) -> CriterionDoesNotFit:
    """The same error with the path of the recipe field in full."""
    return CriterionDoesNotFit(error.title, hint=error.hint, where=f"{field}.{error.where}")
