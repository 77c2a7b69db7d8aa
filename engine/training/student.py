"""What moves while training, beside the program that comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.errors import NothingToTrain, TrainingDiverged
from engine.torchscript.fake_quantise import buffers_of
from engine.torchscript.modes import TrainingProgram, evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.training.averaging import WeightAverage, averaged_tensors, averaging_of
from engine.training.bit_masks import BitMasks
from engine.training.denormals import zero_subnormal
from engine.training.divergence import LossWatch
from engine.training.evaluation import Evaluation
from engine.training.freezing import frozen_layers, frozen_tensors
from engine.training.latents import Latents
from engine.training.memory_format import MemoryFormat, memory_format_of
from engine.training.optimizer import build_optimizer, leaves_zeros, require_range
from engine.training.penalty import require_norm_scales
from engine.training.precision import Precision, precision_of
from engine.training.recording import Recording
from engine.training.run import Trained, TrainingObserver, TrainingRun
from engine.training.state import Best, TrainingState, UnderWay, copy_tensors, snapshot
from engine.training.stopping import Patience


@dataclass
class Student:
    """A program in training.

    Attributes:
        program: in training mode; its weights move.
        forward: of the program, as the processes of the run share it.
        result: in evaluation mode; takes over the weights after every epoch.
        optimizer: of the parameters that are not frozen.
        masks: on the device.
        scales: names of the BatchNorm scales that a penalty is on.
        frozen: tensors that stay as they are.
        average: of the weights, where the recipe asks for one.
        patience: where the run may end early.
        precision: that it computes in.
        memory_format: that images and weights are laid out in.
        zeros_stay: masks need not be applied to the weights after a step, only to the gradients
            before it (see `engine.training.bit_masks`).
        bits: the masks as they are applied.
        best: epoch so far.
        finished: epochs that are over.
        under_way: of the next epoch, where a resumed run begins in its midst.
        recording: of the curves; what a state keeps of them it recalls.
        micro_batch: samples that are run at a time; None for whole batches.
        steps_apart: of this process, whose gradients were exchanged after they were complete (see
            `engine.training.relief`).
        watch: of the losses.
        good: the last epoch that may be the result, where no validation split chooses one.
        remarks: what the report must tell.
        diverged: in which epoch the run ran away, and how; empty where it did not.
        latents: that some of the weights follow from; None where none does.
    """

    program: TrainingProgram
    forward: Callable[..., Any]
    result: Program
    optimizer: torch.optim.Optimizer
    masks: dict[str, Tensor]
    scales: list[str]
    frozen: dict[str, Tensor]
    average: WeightAverage | None
    patience: Patience | None
    precision: Precision
    memory_format: MemoryFormat
    zeros_stay: bool
    finished: int
    best: Best | None = None
    under_way: UnderWay | None = None
    bits: BitMasks = field(default_factory=BitMasks)
    recording: Recording | None = None
    micro_batch: int | None = None
    steps_apart: int = 0
    watch: LossWatch = field(default_factory=LossWatch)
    good: Best | None = None
    remarks: list[str] = field(default_factory=list)
    diverged: str = ""
    latents: Latents | None = None

    def moved(self) -> dict[str, Tensor]:
        """What the optimiser moves, or leaves where it is frozen: parameters, and latents instead
        of those that follow from them."""
        parameters = self.program.parameters()
        return parameters if self.latents is None else self.latents.in_place_of(parameters)

    def forget_gradients(self) -> None:
        """Before those of a step are found."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.latents is not None:
            self.latents.forget_gradients()

    def recall(self, state: TrainingState, run: TrainingRun) -> None:
        """Go on from a state."""
        copy_tensors(state.tensors, self.program.attributes())
        if self.latents is not None:
            self.latents.recall(state.latents)
        self.optimizer.load_state_dict(state.optimizer)
        self.best, self.finished, self.under_way = state.best, state.epoch, state.under_way
        if state.masks is not None:
            self.masks = placed(state.masks, run.device)
        if self.average is not None and state.average is not None:
            self.average.recall(state.average, self.masks, run.device)
        if self.patience is not None and state.patience is not None:
            self.patience.recall(state.patience)
        self.precision.recall(state.precision)
        self.micro_batch, self.good = state.micro_batch, state.good
        self.remarks = list(state.remarks)
        if state.watch is not None:
            self.watch.recall(state.watch)
        if self.recording is not None:
            self.recording.recall(state.recording)

    def state(self, run: TrainingRun, under_way: UnderWay | None = None) -> TrainingState:
        """What a resumed run must be told, after an epoch or after a step of the next."""
        return TrainingState(
            epoch=self.finished,
            tensors=snapshot(self.program.attributes()),
            optimizer=self.optimizer.state_dict(),
            best=self.best,
            masks=_kept(self.masks, run),
            memory={} if run.sparsity is None else run.sparsity.memory(),
            average=None if self.average is None else self.average.memory(),
            patience=None if self.patience is None else self.patience.memory(),
            under_way=under_way,
            precision=self.precision.memory(),
            recording=None if self.recording is None else self.recording.to_plain(),
            micro_batch=self.micro_batch,
            watch=self.watch.memory(),
            good=self.good,
            remarks=list(self.remarks),
            latents={} if self.latents is None else self.latents.memory(),
        )

    def settle(self) -> None:
        """End an epoch: clean up the weights and show them."""
        zero_subnormal(self.program.attributes())
        self.bits.zero_weights(self.program.parameters(), self.masks)
        if self.latents is not None:
            self.latents.settle()
        # Frozen tensors keep their bits, subnormal ones too.
        copy_tensors(self.frozen, self.program.attributes())
        self._show()

    def judge(self, measured: Evaluation, run: TrainingRun, epoch: int) -> None:
        """Take in what the validation split says of an epoch (from 0) that may be kept."""
        best = self.best
        better = best is None or best.beaten_by(
            measured.value, measured.loss, higher_is_better=measured.higher_is_better
        )
        if run.options.keep == "best" and better:
            self.best = Best(
                epoch=epoch + 1,
                metric=measured.value,
                loss=measured.loss,
                tensors=snapshot(self.result.attributes()),
                masks=_kept(self.masks, run),
                latents=self._shown_latents(),
            )
        if self.patience is not None:
            self.patience.see(measured, epoch)

    def keep_good(self, run: TrainingRun, epoch: int) -> None:
        """Hold the weights of an epoch (from 0) that may be the result, in case the next runs away.

        Where the validation split chooses the best epoch, that is held already.
        """
        if self.watch.above or (run.options.keep == "best" and run.validation is not None):
            return
        self.good = Best(
            epoch=epoch + 1,
            metric=0.0,
            loss=0.0,
            tensors=snapshot(self.result.attributes()),
            masks=_kept(self.masks, run),
            latents=self._shown_latents(),
        )

    def fall_back(self, error: TrainingDiverged, run: TrainingRun, epoch: int) -> bool:
        """End a run that diverged in an epoch (from 0); False where it has nothing to show."""
        self.best = self.best or self.good
        if self.best is None:
            return False
        self.diverged = (
            f"in epoch {epoch + 1} of {run.options.epochs}: {error.title}; the weights are those "
            f"of epoch {self.best.epoch}"
        )
        return True

    def remark(self, message: str, observer: TrainingObserver) -> None:
        """Say something that the report tells as well."""
        self.remarks.append(message)
        observer.remark(message)

    def trained(self, run: TrainingRun) -> Trained:
        """The result: of the best epoch where there is one, else of the last."""
        best, masks = self.best, self.masks
        if best is None:
            self._show()
            latents = self._shown_latents()
        else:
            copy_tensors(best.tensors, self.result.attributes())
            latents = best.latents
            masks = masks if best.masks is None else best.masks
        stopped = None
        patience = self.patience
        if patience is not None and patience.exhausted and self.finished < run.epochs.stop:
            end = f"after epoch {self.finished} of {run.options.epochs}"
            stopped = f"{end}: {patience.reason()}"
        stopped = self.diverged or stopped
        held = {name: mask.cpu() for name, mask in masks.items()}
        return Trained(
            program=self.result,
            masks=held,
            stopped=stopped,
            recording=self.recording,
            remarks=tuple(self.remarks),
            optimizer=self.optimizer.state_dict(),
            diverged=bool(self.diverged),
            latents={name: latent.cpu() for name, latent in latents.items()},
        )

    def _show(self) -> None:
        """Give the result the weights, or their average where there is one."""
        copy_tensors(self.program.attributes(), self.result.attributes())
        if self.average is not None and self.average.steps:
            copy_tensors(self.average.tensors, self.result.attributes())
            zero_subnormal(self.result.attributes())
            if self.latents is not None:
                self.latents.show(self.result.parameters(), self._shown_latents())
            copy_tensors(self.frozen, self.result.attributes())

    def _shown_latents(self) -> dict[str, Tensor]:
        """What the weights of the result follow from."""
        if self.latents is None:
            return {}
        if self.average is None or not self.average.steps:
            return self.latents.memory()
        averaged = self.average.tensors
        return {
            name: averaged[name].to(latent.dtype, copy=True)
            for name, latent in self.latents.tensors.items()
        }


def begin(program: Program, run: TrainingRun) -> Student:
    """A copy of the program, ready for the first step.

    Raises:
        NothingToTrain: the program has no floating-point parameters, or all are frozen.
        PatternMatchesNothing: a pattern of `freeze` matches no layer.
        TrainingRuleUnmet: a rule finds nothing in the model, or no room in the run.
    """
    options = run.options
    layers = frozen_layers(program, options.freeze, field=run.field)
    frozen = snapshot(frozen_tensors(program, layers))
    trained = {name: held for name, held in program.parameters().items() if name not in frozen}
    precision = precision_of(options, trained, device=run.device, field=run.field)
    student = training_copy(
        program,
        batch_norm=options.batch_norm,
        frozen=layers,
        dropout=run.dropout,
        shown={str(number): one.student for number, one in enumerate(run.features)},
        autocast=precision.lowered,
    )
    result = evaluation_copy(student)
    memory_format = memory_format_of(program, run)
    memory_format.lay_out(student)
    parameters = _trainable(student, frozen, run)
    if run.optimizer is None:
        require_range(options.optimizer, parameters, field=run.field)
    # Exporters often switch gradients off; that says nothing about what may be fine-tuned.
    for name, parameter in student.parameters().items():
        parameter.requires_grad_(name in parameters)
    masks = placed(run.masks, run.device)
    rules = {name: rule for name, rule in run.reparametrised.items() if name in parameters}
    latents = Latents(rules, student.parameters(), masks) if rules else None
    moved = parameters if latents is None else latents.in_place_of(parameters)
    optimizer = (
        build_optimizer(options.optimizer, moved.values())
        if run.optimizer is None
        else run.optimizer(moved)
    )
    # Ranges of activations are averages already, and their grids follow from them.
    weights = averaged_tensors(student, frozen | buffers_of(student))
    if latents is not None:
        # The mean of two values of a grid is not on it: latents are averaged.
        weights = latents.in_place_of(weights)
    stopping = options.early_stopping
    started = Student(
        program=student,
        forward=run.world.joined(student),
        result=result,
        optimizer=optimizer,
        masks=masks,
        scales=require_norm_scales(student, options.penalty, field=run.field),
        frozen=frozen,
        average=averaging_of(options.ema, weights, end=run.epochs.stop, field=run.field),
        patience=None if stopping is None else Patience(stopping),
        precision=precision,
        memory_format=memory_format,
        zeros_stay=run.sparsity is None
        and run.optimizer is None
        and leaves_zeros(options.optimizer),
        finished=run.epochs.start,
        latents=latents,
    )
    started.bits.zero_weights(student.parameters(), started.masks)
    return started


def placed(masks: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """The masks on the device."""
    return {name: mask.to(device) for name, mask in masks.items()}


def _trainable(
    student: Program, frozen: Mapping[str, Tensor], run: TrainingRun
) -> dict[str, Tensor]:
    parameters = {name: held for name, held in student.parameters().items() if name not in frozen}
    if not parameters and frozen:
        raise NothingToTrain(
            f"`freeze` {list(run.options.freeze)} leaves no parameter to train",
            hint="freeze fewer layers",
            where=f"{run.field}.freeze",
        )
    if not parameters:
        raise NothingToTrain(
            "the program has no parameters to train",
            hint="constants that are only added, multiplied or looked up are not trained; leave "
            "fine-tuning out",
            where=run.field,
        )
    return parameters


def _kept(masks: Mapping[str, Tensor], run: TrainingRun) -> dict[str, Tensor] | None:
    """Masks for a checkpoint; None where they hold through the run, and the job has them."""
    return None if run.sparsity is None else {name: mask.cpu() for name, mask in masks.items()}
