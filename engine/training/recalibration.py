r"""Recalibration: the running statistics of BatchNorm measured anew, without training.

Pruning changes what flows through a network, and the running means and variances are still those
of before. Batches b = 1 .. B of n_b samples go through the network, every BatchNorm normalising by
the batch as in training, and with m_b and v_b its mean and (unbiased) variance of a channel

    \mu = \sum_b w_b m_b,   \sigma^2 = \sum_b w_b (v_b + m_b^2) - \mu^2,   w_b = n_b / \sum_b n_b

are the statistics of the population (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm",
section 3, "precise BatchNorm"): all batches weigh the same by sample, the variance between them
included, where an average with momentum is mostly of the last ones. With a momentum p they move as
in training instead, m <- (1 - p) m + p m_b. Dropout stays off, for no weight moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.data.batches import Batch, batches, bounds, shuffled
from engine.data.splits import Split
from engine.errors import TrainingDiverged, TrainingRuleUnmet
from engine.seeds import generator
from engine.torchscript.batch_norms import BatchNorm, batch_norms, in_loops
from engine.torchscript.edit import GraphEditor
from engine.torchscript.program import Program, memory_of
from engine.training.denormals import flushed_denormals
from engine.training.state import copy_tensors


@dataclass(frozen=True)
class Recalibration:
    """One run over samples.

    Attributes:
        split: whose inputs it reads.
        samples: how many, at most.
        batch_size: samples at a time.
        momentum: None for the statistics of the population.
        seed: of the recipe.
        purpose: names this run among the runs of a job, for its seeds.
        field: path of the recipe's stage, for errors.
        device: where the program lies.
    """

    split: Split
    samples: int
    batch_size: int
    momentum: float | None
    seed: int
    purpose: str
    field: str
    device: str = "cpu"

    def stream(self) -> Iterator[Batch]:
        """The drawn samples, batch by batch."""
        rows = generator(self.seed, self.purpose, "samples")
        order = shuffled(self.split.samples, rows)[: self.samples]
        for start, stop in bounds(len(order), self.batch_size):
            made = batches(
                self.split,
                stop - start,
                device=self.device,
                order=order[start:stop],
                merge_last=False,
            )
            yield next(iter(made))

    @property
    def count(self) -> int:
        """Batches of the stream."""
        return len(bounds(min(self.samples, self.split.samples), self.batch_size))


@torch.no_grad()
def recalibrate(
    program: Program, run: Recalibration, progress: Callable[[int, int], None]
) -> Program:
    """A copy of the program with new statistics, in evaluation mode.

    Args:
        program: in evaluation mode; it is not written to.
        run: what is read.
        progress: is told the batches done, of all.

    Raises:
        TrainingRuleUnmet: no BatchNorm has running statistics, or one normalises more than once in
            a pass and there is no momentum.
        InputsDoNotFit: the program refuses the batch size.
        TrainingDiverged: a statistic is NaN or infinite.
    """
    measuring, names = _measuring_copy(program, run)
    held = measuring.attributes()
    means = {mean: torch.zeros_like(held[mean], dtype=torch.float64) for mean, _ in names}
    squares = {var: torch.zeros_like(held[var], dtype=torch.float64) for _, var in names}
    seen = 0
    with plain_execution(), flushed_denormals():
        for number, batch in enumerate(run.stream(), start=1):
            call(measuring.module, batch.inputs, where=f"{run.field}.batch_size")
            seen += batch.size
            for mean, var in names:
                m, v = held[mean].double(), held[var].double()
                means[mean] += batch.size * m
                squares[var] += batch.size * (v + m * m)
            progress(number, run.count)
    found: dict[str, Tensor] = {}
    for mean, var in names:
        if run.momentum is None:
            m = means[mean] / seen
            # Rounding must not make a channel that never changes a negative variance.
            found[mean], found[var] = m, (squares[var] / seen - m * m).clamp(min=0.0)
        else:
            found[mean], found[var] = held[mean], held[var]
    for name, tensor in found.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingDiverged(
                f"the statistic `{name}` became NaN or infinite",
                hint="check the dataset for NaN and the model for weights that overflow; a single "
                "value per channel in a batch has no variance either: raise `batch_size`",
                where=run.field,
            )
    result = program.twin()
    copy_tensors(found, result.attributes())
    return result


def require_statistics(program: Program, field: str) -> list[BatchNorm]:
    """The BatchNorm operators that have running statistics.

    Args:
        program: to look at.
        field: path of the recipe's stage, for errors.

    Raises:
        TrainingRuleUnmet: there are none.
    """
    norms = [norm for norm in batch_norms(program.block) if len(norm.statistics) == 2]
    if not norms:
        raise TrainingRuleUnmet(
            "the model has no BatchNorm with running statistics; there is nothing to recalibrate",
            hint="leave the stage out; BatchNorm that was folded into convolutions has none either",
            where=field,
        )
    return norms


def _measuring_copy(program: Program, run: Recalibration) -> tuple[Program, list[tuple[str, str]]]:
    """A copy that normalises by batch and leaves in the buffers what was asked for; and the names
    of the running means and variances, each pair once."""
    copy = program.copy()
    norms = require_statistics(copy, run.field)
    if run.momentum is None:
        _require_once(copy, norms, run.field)
    editor = GraphEditor(copy)
    for norm in norms:
        operator = norm.instruction.operator
        if operator is None:
            raise TypeError("BatchNorm without an operator")
        places = operator.arguments
        editor.replace_operand(norm.instruction, places.index("training"), True)
        share = 1.0 if run.momentum is None else run.momentum
        editor.replace_operand(norm.instruction, places.index("momentum"), share)
    return copy, list(dict.fromkeys((norm.statistics[0], norm.statistics[1]) for norm in norms))


def _require_once(program: Program, norms: list[BatchNorm], field: str) -> None:
    repeated = in_loops(program.block)
    held, read = program.attributes(), set[tuple[Any, ...]]()
    for norm in norms:
        memory = memory_of(held[norm.statistics[0]])
        if memory in read or norm.instruction.index in repeated:
            raise TrainingRuleUnmet(
                f"`{norm.statistics[0]}` is of a BatchNorm that normalises more than once in a "
                "pass, and a batch leaves only the last statistics",
                hint="give `momentum`, such as 0.1, which takes in every one of them",
                where=f"{field}.momentum",
            )
        read.add(memory)
