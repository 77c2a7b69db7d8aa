"""What every loss is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.objective.reading import Pair, Reader


@dataclass(frozen=True)
class Loss(ABC):
    """A loss as a mean over terms: samples, positions or elements.

    Attributes:
        reader: how outputs and targets are read.
    """

    reader: Reader

    @property
    @abstractmethod
    def name(self) -> str:
        """In the recipe."""

    @abstractmethod
    def mean(self, pair: Pair) -> Tensor:
        """What is minimised: a scalar that gradients flow through, with smoothing."""

    @abstractmethod
    def total(self, pair: Pair) -> Tensor:
        """The sum over the terms, without smoothing; a scalar."""

    def drawn(self, scores: Tensor, source: torch.Generator) -> Tensor | None:
        """Targets as the scores say they are distributed; None where the loss is no likelihood.

        Args:
            scores: in the family's form.
            source: on the CPU.
        """
        del scores, source
        return None
