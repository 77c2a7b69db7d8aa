"""One training run: what it is given, who hears of it, what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from secateur.recipe import FinetuneOptions
from torch import Tensor

from engine.data.splits import Split
from engine.features.matching import Matched
from engine.objective.objective import CLASSIFICATION, Objective
from engine.quantisation.reparametrisation import Reparametrisations
from engine.torchscript.program import Program
from engine.training.accumulation import steps_of_an_epoch
from engine.training.sparsity import SparsityRule
from engine.training.state import TrainingState
from engine.training.teacher_cache import TeacherCache
from engine.training.world import Alone, World

if TYPE_CHECKING:
    from engine.training.recording import Recording


class TrainingObserver(Protocol):
    """Hears how training goes."""

    def progress(self, current: int, total: int, unit: str) -> None:
        """Steps done, of all."""

    def metric(self, name: str, value: float, step: int) -> None:
        """A value after an epoch; `step` counts epochs from 1."""

    def remark(self, message: str) -> None:
        """Something that the report tells as well."""

    def step_finished(self, state: TrainingState) -> None:
        """A step within an epoch is complete, and the pace says that a checkpoint is due."""

    def epoch_finished(self, state: TrainingState) -> None:
        """An epoch is complete; the run can resume from `state`."""


class Pace(Protocol):
    """Says when a run shall tell where it stands."""

    def due_after_step(self) -> bool:
        """Asked after every optimiser step but the last of an epoch."""

    def due_after_epoch(self) -> bool:
        """Asked after every epoch."""


@dataclass(frozen=True)
class TrainingRun:
    """One fine-tuning run.

    Attributes:
        options: of the recipe.
        train: split, with targets where the options need them.
        validation: split with targets to choose the best epoch on, or None.
        masks: element masks to hold.
        seed: of the recipe.
        purpose: names this run among the runs of a job, for its seeds.
        field: path of the recipe field, for errors.
        device: where the program lies.
        example_batch: samples in the example inputs.
        dropout: probabilities other than the program's (see `engine.training.dropout`).
        sparsity: how the masks change while training, or None where they hold.
        first_epoch: epochs of the schedule that are left out at its start.
        optimizer: makes what moves the parameters, by name; None for the optimiser of the options.
        first_step: optimiser steps that count as taken already.
        stop_step: the run ends after this many steps in all; None for the options' epochs.
        teacher: in evaluation mode, for options with distillation; it is not written to.
        features: by which student and teacher are compared besides.
        cache: of what the teacher says of each sample; None where it is asked for every batch.
        objective: of the job; what is minimised is `objective.trained_by(options)`.
        pace: of what the observer hears of states; None for one after every epoch.
        world: the processes that share the run.
        reparametrised: weights that follow from latent tensors; under masks that hold.
    """

    options: FinetuneOptions
    train: Split
    validation: Split | None
    masks: Mapping[str, Tensor]
    seed: int
    purpose: str
    field: str
    device: str = "cpu"
    example_batch: int = 1
    dropout: Mapping[int, float] = dataclasses.field(default_factory=dict)
    sparsity: SparsityRule | None = None
    first_epoch: int = 0
    optimizer: Callable[[Mapping[str, Tensor]], torch.optim.Optimizer] | None = None
    first_step: int = 0
    stop_step: int | None = None
    teacher: Program | None = None
    features: Sequence[Matched] = ()
    cache: TeacherCache | None = None
    objective: Objective = CLASSIFICATION
    pace: Pace | None = None
    world: World = dataclasses.field(default_factory=Alone)
    reparametrised: Reparametrisations = dataclasses.field(default_factory=dict)

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_of_an_epoch(self.options, self.train.samples)

    @property
    def epochs(self) -> range:
        """The epochs it takes part in, from 0; the first and the last may be parts of one."""
        end = self.options.epochs
        if self.stop_step is not None:
            end = min(end, -(-self.stop_step // self.per_epoch))
        return range(max(self.first_epoch, self.first_step // self.per_epoch), end)

    def steps_of(self, epoch: int) -> range:
        """The steps of the whole training that it takes in an epoch, both from 0."""
        begin = epoch * self.per_epoch
        end = begin + self.per_epoch
        if self.stop_step is not None:
            end = min(end, self.stop_step)
        return range(max(begin, self.first_step), end)


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Attributes:
        program: in evaluation mode.
        masks: that hold in it, on the CPU.
        stopped: after which epoch it ended and why, where that was before the options' epochs.
        remarks: what the report must tell.
        recording: of the run's curves (see `engine.training.recording`).
        optimizer: its state after the last step.
        diverged: whether `stopped` is because the run ran away.
        latents: that the weights of the program follow from, on the CPU (see
            `engine.training.latents.encodings_of`).
    """

    program: Program
    masks: dict[str, Tensor]
    stopped: str | None = None
    recording: Recording | None = None
    remarks: tuple[str, ...] = ()
    optimizer: dict[str, Any] = dataclasses.field(default_factory=dict)
    diverged: bool = False
    latents: dict[str, Tensor] = dataclasses.field(default_factory=dict)
