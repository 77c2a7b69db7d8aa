"""A loss or a metric of the user's own: a TorchScript module `(outputs, targets) -> scalar`.

It is given the output's tensor that `objective.output` names, or the whole output where the recipe
names none; and the target tensor that `objective.target` names, or else the only one, or a tuple of
all of them in the order of their names. It runs where the model runs, in evaluation mode, node by
node like every uploaded program, and none of its own weights is trained.

What it returns stands for a mean over the samples of the batch: over a split its values are
averaged with the batches' sizes as weights. For a mean over samples that is the mean over the
split, however it is cut; for anything else (a mean over positions that do not all count, a
correlation) it depends on the batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engine.calling import describe, plain_execution
from engine.data.batches import Batch
from engine.errors import EngineError
from engine.objective.loss import Loss
from engine.objective.metrics import Tally
from engine.objective.outputs import picked
from engine.objective.reading import Pair, Reader
from engine.structure import map_tensors, tensors_in
from engine.torchscript.program import Program

Role = Literal["loss", "metric"]


class ObjectiveModuleInvalid(EngineError):
    """An uploaded loss or metric does not do what one must."""

    type = "objective-module-invalid"


@dataclass(frozen=True)
class WholeReader(Reader):
    """The output and the targets as an uploaded module is given them."""

    def raw(self, output: Any) -> Tensor | None:
        """The tensor that is named, if any."""
        return None if self.output is None else picked(output, self.output)

    def check_scores(self, scores: Tensor, name: str) -> None:
        """Whatever it is."""

    def check_targets(self, scores: Tensor, batch: Batch, name: str, first_row: int) -> None:
        """Whatever they are; the module is tried instead."""

    def read(self, output: Any, batch: Batch) -> Pair:
        """Not changed in form or type."""
        given = output if self.output is None else picked(output, self.output)
        targets = batch.targets
        if isinstance(targets, tuple) and self.target is not None:
            targets = targets[self.target]
        return Pair(given, targets, batch.size, whole=True)


@dataclass(frozen=True, eq=False)
class UploadedModule:
    """The module, and what it is in the job.

    Attributes:
        module: takes (outputs, targets).
        role: loss or metric.
        name: of the module's class, for errors.
    """

    module: Any
    role: Role
    name: str

    @classmethod
    def load(cls, path: Path, role: Role, *, device: str) -> UploadedModule:
        """Load it; nothing is trained in it.

        Raises:
            NotTorchScript: the file is no TorchScript program.
        """
        program = Program.as_uploaded(path, device=device)
        for tensor in program.parameters().values():
            tensor.requires_grad_(False)
        return cls(program.module, role, str(getattr(program.module, "original_name", "module")))

    @property
    def title(self) -> str:
        """For errors."""
        return f"the {self.role} module `{self.name}`"

    def __call__(self, pair: Pair) -> Tensor:
        """Its scalar for a batch.

        Raises:
            ObjectiveModuleInvalid: it raised, does not take these arguments, or returns no scalar.
        """
        given = describe([pair.scores, pair.targets])
        try:
            with plain_execution():
                value = self.module(pair.scores, pair.targets)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise self._invalid(
                f"fails: {str(error).strip().splitlines()[-1]}",
                f"it was called with ({given}); it must take (outputs, targets) of these types",
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise self._invalid(
                f"returns {describe([value])}, and no scalar",
                "return one number as a tensor, such as the mean over the samples",
            )
        if not value.is_floating_point():
            raise self._invalid(
                f"returns {describe([value])}, and no float", "return a float32 tensor"
            )
        return value.reshape(())

    def check(self, pair: Pair) -> None:
        """Try it on a batch, before any work is spent.

        Raises:
            ObjectiveModuleInvalid: its value is no finite number, or a loss has no gradient.
        """
        pair = replace(pair, scores=map_tensors(pair.scores, lambda tensor: tensor.clone()))
        asked = [
            tensor.requires_grad_(True)
            for tensor in tensors_in(pair.scores)
            if tensor.is_floating_point()
        ]
        with torch.enable_grad():
            value = self(pair)
        if not bool(torch.isfinite(value)):
            raise self._invalid(
                f"returns {float(value.detach())} on the first samples",
                "check the module and the dataset for NaN and division by zero",
            )
        if self.role == "metric":
            return
        if not value.requires_grad:
            raise self._invalid(
                "has no gradient towards the model's output: its value does not depend on it, or "
                "by operators without a gradient",
                "build the loss of differentiable operators, without `detach` and `argmax`",
            )
        found = torch.autograd.grad(value, asked, allow_unused=True)
        for gradient in found:
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                raise self._invalid(
                    "has a gradient that is NaN or infinite on the first samples",
                    "keep roots, logarithms and quotients away from zero",
                )

    def _invalid(self, what: str, hint: str) -> ObjectiveModuleInvalid:
        return ObjectiveModuleInvalid(
            f"{self.title} {what}", hint=hint, where=f"{self.role}_model_id"
        )


def lacking(role: Role) -> ObjectiveModuleInvalid:
    """The error that a recipe asks for a module and none came with the job."""
    return ObjectiveModuleInvalid(
        f"the recipe asks for `{role}: module`, and no module came with the job",
        hint=f"upload it and give its id as `{role}_model_id`",
        where=f"{role}_model_id",
    )


@dataclass(frozen=True)
class UploadedLoss(Loss):
    """Mean over samples of whatever the module returns for a batch."""

    module: UploadedModule

    @property
    def name(self) -> str:
        """In the recipe."""
        return "module"

    def mean(self, pair: Pair) -> Tensor:
        """What the module returns."""
        return self.module(pair)

    def total(self, pair: Pair) -> Tensor:
        """What it returns, as many times as there are samples."""
        return self.module(pair).detach() * pair.samples


class UploadedTally(Tally):
    """The mean of a metric module's values, by samples."""

    def __init__(self, module: UploadedModule, device: str) -> None:
        self._module = module
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._samples = 0

    def add(self, pair: Pair) -> None:
        """Ask the module."""
        self._sum += self._module(pair).double() * pair.samples
        self._samples += pair.samples

    def value(self) -> float:
        """The mean."""
        return float(self._sum) / self._samples if self._samples else math.nan
