"""What a ramp within a training run removes at each growth, and whether it removes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from secateur.recipe import Agp, PruneStage
from torch import Tensor

from engine.errors import CriterionDoesNotFit, NothingPruned
from engine.masks import Masks, maskable, prune_elements
from engine.patterns import pattern_dimensions
from engine.pipeline.checkpoint import JobState
from engine.pipeline.prune import in_stage
from engine.pipeline.scoring import JudgedElements, in_stage_criterion, judge_elements
from engine.pipeline.setup import Workbench
from engine.scores import criterion
from engine.scores.saliency import finite
from engine.seeds import derive
from engine.torchscript.modes import TrainingProgram, evaluation_copy
from engine.torchscript.program import Program
from engine.training.movement import Regrow


@dataclass(frozen=True)
class Growth:
    """Chooses the masks of a ramp, always by the weights as they are then.

    A criterion that runs the model runs it as it is in use: in evaluation mode, under the masks of
    the growth before.

    Attributes:
        bench: of the job.
        stage: with schedule `agp`; what training may not touch is excluded.
        index: of the stage.
        weights: names of the weights that can be masked.
        dimensions: granularity `n_m`: of the inputs of every weight that gets the pattern.
    """

    bench: Workbench
    stage: PruneStage
    index: int
    weights: frozenset[str]
    dimensions: Mapping[str, int] | None

    @property
    def field(self) -> str:
        """Path of the stage in the recipe."""
        return f"recipe.stages.{self.index}"

    def __call__(
        self, program: Program, masks: Mapping[str, Tensor], round_number: int
    ) -> Mapping[str, Tensor]:
        """The masks after a growth; zeroes the weights that go.

        Args:
            program: being trained.
            masks: that hold, on its device.
            round_number: of the growth; 0 starts the ramp.
        """
        held = {name: mask.cpu() for name, mask in masks.items()}
        try:
            judged = self.judge(program, round_number)
            return self.prune(program, held, round_number, judged.saliency)[0]
        except NothingPruned as error:
            raise in_stage(error, self.field) from error
        except CriterionDoesNotFit as error:
            raise in_stage_criterion(error, self.field) from error

    def by_movement(self, masks: Mapping[str, Tensor]) -> Regrow:
        """Growths by scores that training accumulates, among all weights but those masked before.

        Args:
            masks: that held before the stage, on the CPU.
        """

        def regrow(
            program: Program, round_number: int, scores: Mapping[str, Tensor]
        ) -> Mapping[str, Tensor]:
            saliency = finite({name: score.cpu() for name, score in scores.items()}, "movement")
            try:
                return self.prune(program, masks, round_number, saliency)[0]
            except NothingPruned as error:
                raise in_stage(error, self.field) from error

        return regrow

    def judge(self, program: Program, round_number: int) -> JudgedElements:
        """What a criterion that runs the model works out, `movement` apart: training gives that."""
        of_weights = criterion(self.stage.criterion).saliency is None
        if of_weights or self.stage.criterion == "movement":
            return JudgedElements(None, [])
        judged = evaluation_copy(program) if isinstance(program, TrainingProgram) else program
        seed = derive(self.bench.recipe.seed, "prune", self.index, round_number)
        return judge_elements(self.bench, judged, self.stage, seed, self.field)

    def prune(
        self,
        program: Program,
        masks: Mapping[str, Tensor],
        round_number: int,
        saliency: Mapping[str, Tensor] | None,
    ) -> tuple[Masks, int]:
        """Masks after a growth, and how many weights they add; zeroes those weights.

        Args:
            program: any whose weights the criterion judges.
            masks: that hold, on the CPU.
            round_number: of the growth.
            saliency: what was worked out for every weight; None for criteria of weights alone.
        """
        schedule = self.stage.schedule
        return prune_elements(
            program,
            masks,
            self.stage,
            seed=derive(self.bench.recipe.seed, "prune", self.index, 1),
            round_number=round_number,
            rounds=schedule.rounds if isinstance(schedule, Agp) else 1,
            dimensions=self.dimensions,
            saliency=saliency,
        )


def growth_of(bench: Workbench, state: JobState, stage: PruneStage, index: int) -> Growth:
    """The growths of a stage; what they leave whole goes into the state.

    Raises:
        NothingPruned: the whole ramp would remove nothing.
        CriterionDoesNotFit: the criterion finds nothing to look at.
    """
    dimensions = None
    field = f"recipe.stages.{index}"
    try:
        if stage.granularity == "n_m":
            dimensions, whole = pattern_dimensions(state.program, stage, bench.inputs)
            state.frozen.extend(item for item in whole if item not in state.frozen)
        names = frozenset(dimensions or maskable(state.program, stage.exclude))
        growth = Growth(bench, stage, index, names, dimensions)
        trial = state.program.twin()
        judged = growth.judge(trial, 1)
        if stage.criterion == "movement":
            # Nothing has moved yet, and how much goes depends on no score.
            judged = JudgedElements(
                {name: torch.zeros(trial.parameters()[name].shape) for name in growth.weights}, []
            )
        state.frozen.extend(item for item in judged.frozen if item not in state.frozen)
        last = stage.schedule.rounds if isinstance(stage.schedule, Agp) else 1
        _, removed = growth.prune(trial, state.masks, last, judged.saliency)
        if removed == 0:
            raise NothingPruned(
                "the plan removes nothing: the amount rounds to no weight, or those weights are "
                "masked already",
                hint="raise the amount; amounts count against all weights, masked ones included",
                where="allocation",
            )
    except NothingPruned as error:
        raise in_stage(error, field) from error
    except CriterionDoesNotFit as error:
        raise in_stage_criterion(error, field) from error
    return growth
