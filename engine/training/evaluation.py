"""Average loss and top-1 accuracy on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from secateur.report import Accuracy
from torch import Tensor

from engine.calling import call, output_tensor, plain_execution
from engine.data.batches import batches
from engine.data.splits import Split
from engine.errors import InputsDoNotFit, ModelRaised
from engine.structure import at_batch_size
from engine.torchscript.program import Program
from engine.training.objective import class_indices, correct, cross_entropy

_BATCH = 128


@dataclass(frozen=True)
class Evaluation:
    """Result on a split.

    Attributes:
        loss: average cross-entropy, without label smoothing.
        accuracy: right answers; one per sample, or per position for dense predictions.
    """

    loss: float
    accuracy: Accuracy


def evaluate(program: Program, split: Split, *, device: str, example_batch: int = 1) -> Evaluation:
    """Run the split through the program.

    Batches hold 128 samples, or what the example holds when the program takes no other number;
    the last one is then filled up with repeated samples whose results are dropped.

    Args:
        program: in evaluation mode.
        split: with targets.
        device: where the program lies.
        example_batch: samples in the example inputs.
    """
    size = _batch_size(program, split, device, example_batch)
    fixed = size != min(_BATCH, split.samples)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    total = 0
    with torch.no_grad(), plain_execution():
        for batch in batches(split, size, device=device, merge_last=not fixed):
            inputs = at_batch_size(batch.inputs, size) if fixed else batch.inputs
            logits = _logits(program, inputs, split.input_names)[: batch.size]
            targets = class_indices(batch.targets)
            loss += cross_entropy(logits, targets, total=True)
            right += correct(logits, targets)
            total += targets.numel()
    return Evaluation(
        loss=float(loss) / total,
        accuracy=Accuracy(correct=int(right), total=total, top1=int(right) / total),
    )


def _batch_size(program: Program, split: Split, device: str, example_batch: int) -> int:
    wanted = min(_BATCH, split.samples)
    if wanted == example_batch:
        return wanted
    with torch.no_grad(), plain_execution():
        try:
            first = next(iter(batches(split, wanted, device=device)))
            output = _logits(program, first.inputs, split.input_names)
        except (InputsDoNotFit, ModelRaised):
            # A program traced with its batch size baked in; the evaluation itself tells if not.
            return example_batch
    return wanted if output.shape[0] == first.size else example_batch


def _logits(program: Program, inputs: Sequence[Any], names: Sequence[str]) -> Tensor:
    return output_tensor(call(program.module, inputs, where=", ".join(names)))
