"""Loss and metrics on a split."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.data.batches import batches
from engine.data.splits import Split
from engine.errors import InputsDoNotFit, ModelRaised
from engine.objective.meter import Evaluation as Evaluation  # noqa: PLC0414 - part of this module
from engine.objective.meter import Meter
from engine.objective.objective import CLASSIFICATION, Objective
from engine.structure import at_batch_size, map_tensors, samples_in
from engine.torchscript.program import Program

_BATCH = 128


def evaluate(
    program: Program,
    split: Split,
    *,
    device: str,
    example_batch: int = 1,
    objective: Objective = CLASSIFICATION,
) -> Evaluation:
    """Run the split through the program.

    Batches hold 128 samples, or what the example holds when the program takes no other number;
    the last one is then filled up with repeated samples whose results are dropped.

    Args:
        program: in evaluation mode.
        split: with targets, where the objective needs them.
        device: where the program lies.
        example_batch: samples in the example inputs.
        objective: what is measured.
    """
    size = _batch_size(program, split, device, example_batch)
    fixed = size != min(_BATCH, split.samples)
    meter = Meter(objective, device)
    where = ", ".join(split.input_names)
    with torch.no_grad(), plain_execution():
        for batch in batches(split, size, device=device, merge_last=not fixed):
            inputs = at_batch_size(batch.inputs, size) if fixed else batch.inputs
            output = call(program.module, inputs, where=where)
            meter.add(own_samples(output, size, batch.size) if fixed else output, batch)
    return meter.result()


def own_samples(output: Any, size: int, samples: int) -> Any:
    """An output of `size` samples without those a batch was filled up with."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:samples] if tensor.dim() and tensor.shape[0] == size else tensor

    return map_tensors(output, cut) if samples != size else output


def _batch_size(program: Program, split: Split, device: str, example_batch: int) -> int:
    wanted = min(_BATCH, split.samples)
    if wanted == example_batch:
        return wanted
    with torch.no_grad(), plain_execution():
        try:
            first = next(iter(batches(split, wanted, device=device)))
            output = call(program.module, first.inputs, where=", ".join(split.input_names))
        except (InputsDoNotFit, ModelRaised):
            # A program traced with its batch size baked in; the evaluation itself tells if not.
            return example_batch
    return wanted if samples_in((output,)) == first.size else example_batch
