"""The samples that importance is judged on, batch by batch.

They are drawn from the training split without replacement, in an order that the seed decides, so
that a resumed job judges on the same ones. A program that takes no other number of samples than
its example's gets batches of that many; what does not fill a last one is then left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.data.batches import Batch, batches, bounds, shuffled
from engine.data.splits import Split
from engine.errors import CriterionDoesNotFit, InputsDoNotFit, ModelRaised
from engine.objective.objective import CLASSIFICATION, Objective
from engine.seeds import generator
from engine.structure import at_batch_size, samples_in
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Evidence:
    """Where a criterion may look.

    Attributes:
        example: example inputs of forward, on the device.
        split: to draw samples from; None for criteria that need none.
        samples: how many, at most.
        batch_size: samples that are run at a time.
        target: what gradients are taken towards, see `engine.evidence.gradients`.
        teacher: the upload, for `target: teacher`.
        seed: decides which samples, and what labels a teacher draws.
        device: where the program lies.
        field: path of the recipe's stage, for errors.
        masks: that hold, by parameter name, on the CPU.
        movement: what training just before has accumulated, see `engine.training.movement`; None
            where there was none, so that the criterion trains a copy.
        epochs: passes over the samples that the copy is trained for.
        rate: learning rate of the copy.
        objective: of the job; its loss is what gradients are of.
    """

    example: tuple[Any, ...]
    split: Split | None = None
    samples: int = 256
    batch_size: int = 32
    target: Literal["labels", "teacher"] = "labels"
    teacher: Program | None = None
    seed: int = 0
    device: str = "cpu"
    field: str = "recipe.stages"
    masks: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    movement: Mapping[str, Tensor] | None = None
    epochs: int = 1
    rate: float = 0.01
    objective: Objective = CLASSIFICATION

    def stream(self, program: Program) -> Iterator[tuple[float, Batch]]:
        """Each batch's share of all samples, and the batch; one is in memory at a time.

        Raises:
            CriterionDoesNotFit: there is no split to draw from.
        """
        split = self.split
        if split is None:
            raise CriterionDoesNotFit(
                "the criterion is judged on samples of the training split, and there are none",
                hint="send a dataset with `train/inputs/0`, or use a criterion of weights alone",
                where="criterion",
            )
        order = shuffled(split.samples, generator(self.seed, "scoring"))[: self.samples]
        size = self._size(program, split, order)
        usable = order[: len(order) // size * size] if size != self._wanted(order) else order
        if not len(usable):
            yield 1.0, self._filled(split, order, size)
        for start, stop in bounds(len(usable), size, merge_last=False):
            yield (stop - start) / len(usable), self._batch(split, usable[start:stop])

    def _wanted(self, order: Tensor) -> int:
        return min(self.batch_size, len(order))

    def _batch(self, split: Split, rows: Tensor) -> Batch:
        taken = batches(split, len(rows), device=self.device, order=rows, merge_last=False)
        return next(iter(taken))

    def _filled(self, split: Split, rows: Tensor, size: int) -> Batch:
        """Fewer samples than the program takes: they are repeated."""
        batch = self._batch(split, rows)
        return Batch(
            inputs=at_batch_size(batch.inputs, size),
            targets=at_batch_size((batch.targets,), size)[0],
            size=size,
        )

    def _size(self, program: Program, split: Split, order: Tensor) -> int:
        wanted, given = self._wanted(order), samples_in(self.example)
        if wanted == given:
            return wanted
        with torch.no_grad(), plain_execution():
            try:
                call(program.twin().module, self._batch(split, order[:wanted]).inputs)
            except (InputsDoNotFit, ModelRaised):
                # Traced with its batch size baked in; running it tells if that was not the cause.
                return given
        return wanted
