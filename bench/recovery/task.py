"""A task of the benchmark: data, network, and how well the network does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Part = Literal["train", "validation", "test"]
Figures = dict[str, float]


@dataclass(frozen=True)
class Samples:
    """Inputs `[samples, ...]` of `forward` and what the network should give for them."""

    inputs: Tensor
    targets: Tensor

    def first(self, samples: int) -> Samples:
        """Only so many samples."""
        return Samples(self.inputs[:samples].clone(), self.targets[:samples].clone())


@dataclass(frozen=True)
class Measure:
    """The figure that a task is judged by.

    Attributes:
        name: key in the records.
        heading: as the page has it.
        kind: `percent` is shown times 100, `number` as it is.
        share: key of the figure by which the share that is won back is counted. That of a
            perplexity is its logarithm: the cross-entropy.
    """

    name: str
    heading: str
    kind: Literal["percent", "number"]
    share: str


@dataclass(frozen=True)
class Training:
    """AdamW with a cosine to zero: epochs, the rate it starts from, samples a step."""

    epochs: int
    lr: float
    batch: int


@dataclass(frozen=True)
class Task:
    """What is pruned and recovered.

    Attributes:
        name: key in the records.
        title: heading on the page.
        words: data and network, as the page has them.
        build: the untrained network; weights are drawn from torch's global generator.
        parts: the data; weights see `train`, settings are chosen on `validation`, figures are of
            `test`.
        loss: of outputs and targets, the mean over samples; what the dense network learns by.
        judge: figures of the outputs for a whole part.
        measure: the figure that counts.
        dense: how the dense network is trained.
        recovery: how it is fine-tuned after pruning.
        form: how the network is exported.
        objective: fields of the recipe's objective; empty for that of a recipe without one.
        distillation: fields of the recipe's distillation besides `alpha`.
        labelled: False where what should be given is in the inputs (the next character).
    """

    name: str
    title: str
    words: str
    build: Callable[[], nn.Module]
    parts: Callable[[], Mapping[Part, Samples]]
    loss: Callable[[Tensor, Tensor], Tensor]
    judge: Callable[[Tensor, Tensor], Figures]
    measure: Measure
    dense: Training
    recovery: Training
    form: Literal["scripted", "traced"] = "scripted"
    objective: Mapping[str, Any] = field(default_factory=dict)
    distillation: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool = True

    def initial(self, seed: int) -> nn.Module:
        """The untrained network of a seed."""
        torch.manual_seed(seed)
        return self.build()
