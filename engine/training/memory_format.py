"""Channels last: images and the weights of convolutions with their channels side by side in memory.

A tensor [n, c, h, w] is laid out as n, h, w, c. Its shape, its indices and what is computed stay
the same up to rounding; kernels that work on all channels of a place (tensor cores, depthwise
convolutions on CPUs) find them together (PyTorch's memory format `channels_last`).

Only the copy in training is laid out so. What comes out of it is copied into the layout of the
upload, and a checkpoint holds numbers by index, whatever their order in memory.

`auto` takes it where it was seen to help: on a GPU for any network of two-dimensional convolutions,
on a CPU where a good part of them is depthwise (12 % faster there in float32 and 31 % in bfloat16,
where a ResNet-18 was 11 % and 4 % slower). It gives it up where the program does not run in it,
such as one that takes a `view` across channels and places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.errors import EngineError, OutOfMemory, TrainingRuleUnmet
from engine.structure import at_batch_size, map_tensors
from engine.torchscript.program import Program, memory_of
from engine.training.run import TrainingRun

_DEPTHWISE_SHARE = 1 / 3
"""Of a network's convolutions; the first layer of one-channel images looks like one as well."""


@dataclass(frozen=True)
class MemoryFormat:
    """How a run lays out tensors of four dimensions."""

    channels_last: bool

    def inputs(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """What goes into forward."""
        if not self.channels_last:
            return inputs
        return [map_tensors(value, laid_out) for value in inputs]

    def lay_out(self, program: Program) -> None:
        """Replace the program's parameters and buffers that are laid out otherwise."""
        if not self.channels_last:
            return
        made: dict[tuple[Any, ...], Tensor] = {}
        for name, tensor in program.attributes().items():
            if tensor.dim() != 4:
                continue
            # Tied weights stay tied.
            fresh = made.setdefault(memory_of(tensor), laid_out(tensor.detach()))
            program.set_tensor(name, fresh)


@torch.no_grad()
def laid_out(tensor: Tensor) -> Tensor:
    """A tensor [n, c, h, w] with its channels last in memory; any other as it is."""
    if tensor.dim() != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def memory_format_of(program: Program, run: TrainingRun) -> MemoryFormat:
    """The layout of a run.

    Args:
        program: that the run begins with, in evaluation mode.
        run: with the recipe's choice.

    Raises:
        TrainingRuleUnmet: the recipe asks for channels last, and the program has no weights of
            four dimensions, or does not run with them laid out so.
    """
    asked, field = run.options.channels_last, f"{run.field}.channels_last"
    weights = [held for held in program.parameters().values() if held.dim() == 4]
    wanted = asked is True or (asked == "auto" and _helps(weights, run.device))
    if not wanted:
        return MemoryFormat(channels_last=False)
    if not weights:
        raise TrainingRuleUnmet(
            "`channels_last` lays out weights of two-dimensional convolutions, and the program has "
            "none",
            hint="leave `channels_last` out, or use `auto`",
            where=field,
        )
    made = MemoryFormat(channels_last=True)
    fault = _fault(program, run, made)
    if fault is None:
        return made
    if asked == "auto":
        return MemoryFormat(channels_last=False)
    raise TrainingRuleUnmet(
        f"the program does not run with channels last: {fault}",
        hint="leave `channels_last` out; `reshape` instead of `view` in the model's code allows it",
        where=field,
    )


def _helps(weights: Sequence[Tensor], device: str) -> bool:
    if device != "cpu":
        return bool(weights)
    depthwise = sum(weight.shape[1] == 1 and weight.shape[0] > 1 for weight in weights)
    return depthwise > 1 and depthwise >= _DEPTHWISE_SHARE * len(weights)


@torch.no_grad()
def _fault(program: Program, run: TrainingRun, made: MemoryFormat) -> str | None:
    """Why the program does not run in this layout, tried on the first samples; None if it does."""
    trial = program.twin()
    made.lay_out(trial)
    size = min(run.example_batch, run.train.samples)
    first, _, _ = run.train.span(0, size, None)
    inputs = [
        map_tensors(value, lambda tensor: tensor.to(run.device))
        for value in at_batch_size(first, run.example_batch)
    ]
    try:
        with plain_execution():
            call(trial.module, made.inputs(inputs), where=f"{run.field}.channels_last")
    except OutOfMemory:
        raise
    except EngineError as error:
        return error.title
    return None
