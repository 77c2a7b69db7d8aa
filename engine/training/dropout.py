"""Dropout while retraining a pruned network.

Pruning already took capacity away, so dropout must take less (Han et al. 2015, section 3.2). With
N_i units in layer i, a layer has C_i = N_i N_(i-1) connections, and dropout before it goes from
probability p_o in the original to

    p_r = p_o sqrt(C_ir / C_io)

where C_io are the connections of the original layer and C_ir those that are left, by smaller
weights or by masks. The layer that a dropout feeds is the first along each path that reads a
weight of two or more dimensions; where paths lead to several, their connections are added. A
dropout that feeds none keeps its probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from torch import Tensor

from engine.calling import copies
from engine.errors import TrainingRuleUnmet
from engine.tape import Step, Tape, canonical_names, flatten, record
from engine.torchscript.modes import DROPOUTS
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Dropout:
    """One dropout of a run.

    Attributes:
        index: of its instruction.
        probability: in the program.
        feeds: weights behind it, by name.
    """

    index: int
    probability: float
    feeds: tuple[str, ...]


def rescaled_dropout(
    program: Program,
    inputs: Sequence[Any],
    original: Program,
    masks: Mapping[str, Tensor],
    *,
    field: str,
) -> dict[int, float]:
    """Probabilities for retraining, by the index of the dropout's instruction.

    Args:
        program: as it is now.
        inputs: the example.
        original: before any pruning.
        masks: that hold in the program.
        field: path of the training options, for errors.

    Raises:
        TrainingRuleUnmet: the model has no dropout.
    """
    found = dropouts(program, inputs)
    if not found:
        raise TrainingRuleUnmet(
            "`dropout: rescale` finds no dropout in the model",
            hint="leave it at `keep`; exporters often drop what does nothing in evaluation",
            where=f"{field}.dropout",
        )
    before = {name: tensor.numel() for name, tensor in original.attributes().items()}
    now = {name: tensor.numel() for name, tensor in program.attributes().items()}
    now |= {name: int(mask.sum()) for name, mask in masks.items()}
    return {
        dropout.index: dropout.probability
        * sqrt(
            sum(now[name] for name in dropout.feeds) / sum(before[name] for name in dropout.feeds)
        )
        for dropout in found
        if dropout.feeds
    }


def dropouts(program: Program, inputs: Sequence[Any]) -> list[Dropout]:
    """The dropouts that run on the example, in order, each instruction once.

    One that runs several times (a shared module) feeds all that follows any of its runs.
    """
    tape = record(program, copies(inputs))
    masked = {tensor: name for name, tensor in _first_names(program).items()}
    found: dict[int, Dropout] = {}
    for position, step in enumerate(tape.steps):
        operator = step.instruction.operator
        if step.instruction.kind not in DROPOUTS or operator is None:
            continue
        if "p" not in operator.arguments or step.argument("p") is None:
            continue
        feeds = dict.fromkeys(masked.get(name, name) for name in _fed(tape, position))
        known = found.get(step.instruction.index)
        if known is not None:
            feeds = dict.fromkeys([*known.feeds, *feeds])
        found[step.instruction.index] = Dropout(
            step.instruction.index, float(step.argument("p")), tuple(feeds)
        )
    return list(found.values())


def _first_names(program: Program) -> dict[str, str]:
    """For parameter names, which masks go by, the names that the tape goes by."""
    canonical = canonical_names(program)
    return {name: canonical[name] for name in program.parameters()}


def _fed(tape: Tape, position: int) -> list[str]:
    """The weights that the first layers behind a step read."""
    reached = {value.number for value in flatten(tape.steps[position].outputs)}
    feeds: list[str] = []
    for step in tape.steps[position + 1 :]:
        if not any(value.number in reached for value in step.tensors()):
            continue
        weights = _weights(step)
        feeds.extend(weights)
        if not weights:
            reached.update(value.number for value in flatten(step.outputs))
    return feeds


def _weights(step: Step) -> list[str]:
    return [
        value.name
        for value in step.tensors()
        if value.name is not None
        and not value.name.startswith("constant:")
        and len(value.shape) >= 2
    ]
