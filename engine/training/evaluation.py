"""Loss and metrics on a split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.data.batches import batches
from engine.data.splits import Split
from engine.errors import InputsDoNotFit, ModelRaised, OutOfMemory
from engine.objective.meter import Evaluation as Evaluation  # noqa: PLC0414 - part of this module
from engine.objective.meter import Meter
from engine.objective.objective import CLASSIFICATION, Objective
from engine.structure import at_batch_size, map_tensors, samples_in
from engine.torchscript.program import Program
from engine.training.state import copy_tensors, snapshot

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
    the last one is then filled up with repeated samples whose results are dropped. Where memory
    is too small for them they hold half as many, and half of that.

    Args:
        program: in evaluation mode.
        split: with targets, where the objective needs them.
        device: where the program lies.
        example_batch: samples in the example inputs.
        objective: what is measured.
    """
    most = wanted = min(_BATCH, split.samples)
    buffers = snapshot(program.buffers())
    while True:
        try:
            size = _batch_size(program, split, device, example_batch, wanted)
            found = _evaluated(program, split, objective, device, size, fixed=size != wanted)
        except OutOfMemory:
            if wanted == 1:
                raise
            wanted = -(-wanted // 2)
        else:
            return replace(found, reduced_to=wanted if wanted < most else None)
        copy_tensors(buffers, program.buffers())


def _evaluated(
    program: Program, split: Split, objective: Objective, device: str, size: int, *, fixed: bool
) -> Evaluation:
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


def _batch_size(
    program: Program, split: Split, device: str, example_batch: int, wanted: int
) -> int:
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
