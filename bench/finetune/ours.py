"""Fine-tuning of the same network as an uploaded program."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import torch
from secateur.recipe import FinetuneOptions
from torch import Tensor, nn

from bench.finetune.networks import Network
from engine.data.splits import Split
from engine.torchscript.program import Program
from engine.training.finetune import finetune
from engine.training.run import TrainingRun
from engine.training.state import TrainingState


class Pausing:
    """An observer that waits for its turn after every epoch, or after every step.

    After the steps it is asked whether a checkpoint is due, and after the last of an epoch once
    the epoch is over.
    """

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause

    def due_after_step(self) -> bool:
        """The end of a turn; there is no checkpoint."""
        self._pause()
        return False

    def due_after_epoch(self) -> bool:
        """There is no checkpoint; the epoch is told all the same."""
        return True

    def progress(self, current: int, total: int, unit: str) -> None:
        """Nothing."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Nothing."""

    def step_finished(self, state: TrainingState) -> None:
        """Nothing."""

    def epoch_finished(self, state: TrainingState) -> None:
        """The end of an epoch."""
        del state
        self._pause()


def program_of(module: nn.Module, device: str) -> Program:
    """What scripting, saving and loading makes of a module."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(copy.deepcopy(module).eval()), buffer)
    return Program.load(buffer.getvalue(), device=device)


def half_masks(program: Program) -> dict[str, Tensor]:
    """Half of every weight of two or more dimensions, at random, stays."""
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(weight.shape, generator=draw) > 0.5
        for name, weight in program.parameters().items()
        if weight.dim() >= 2
    }


def run_of(
    network: Network,
    program: Program,
    data: tuple[Tensor, Tensor],
    epochs: int,
    *,
    device: str,
    masked: bool = False,
    **options: Any,
) -> TrainingRun:
    """A run with the network's optimiser; `options` are further ones of the recipe."""
    inputs, targets = data
    plain = {
        "epochs": epochs,
        "batch_size": network.batch_size,
        "optimizer": network.optimizer,
        "keep": "last",
    }
    return TrainingRun(
        options=FinetuneOptions.model_validate(plain | options),
        train=Split("train", (inputs,), ("train/inputs/0",), targets, "train/targets/0"),
        validation=None,
        masks=half_masks(program) if masked else {},
        seed=0,
        purpose="bench",
        field="recipe.stages.0",
        device=device,
    )


def train(
    network: Network,
    program: Program,
    data: tuple[Tensor, Tensor],
    epochs: int,
    pause: Callable[[], None],
    *,
    device: str,
    masked: bool = False,
    by_step: bool = False,
    **options: Any,
) -> Program:
    """The training of a recipe, which gives the trained program.

    `pause` is called after every epoch; `by_step`, after every step, of an epoch's last behind it.
    """
    run = run_of(network, program, data, epochs, device=device, masked=masked, **options)
    pausing = Pausing(pause)
    if by_step:
        run = dataclasses.replace(run, pace=pausing)
    return finetune(program, run, pausing)
