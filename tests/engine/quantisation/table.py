"""The plainest encoding there is: a table and a number for every weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.quantisation.encoding import Encoding


@dataclass(frozen=True)
class Table(Encoding):
    centroids: Tensor
    assignment: Tensor

    scheme = "table"

    @classmethod
    def of(cls, centroids: Tensor, assignment: Tensor) -> Table:
        return cls(tuple(assignment.shape), centroids.dtype, centroids, assignment)

    @property
    def parts(self) -> dict[str, Tensor]:
        return {"centroids": self.centroids, "assignment": self.assignment}

    @property
    def decoder(self) -> str:
        return (
            "def decode(centroids: Tensor, assignment: Tensor) -> Tensor:\n"
            "    return centroids[assignment]\n"
        )

    def decode(self) -> Tensor:
        return self.centroids[self.assignment]

    def to_plain(self) -> dict[str, Any]:
        return dict(self.parts)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Table:
        return cls.of(plain["centroids"], plain["assignment"])


def quartered(weight: Tensor) -> Table:
    """A weight rounded to quarters of its largest magnitude: values -4 .. 4 of a table of 9."""
    scale = weight.detach().abs().max() / 4
    levels = torch.arange(-4, 5, device=weight.device)
    assignment = (weight.detach() / scale).round().to(torch.int64) + 4
    return Table.of(levels.to(weight.dtype) * scale, assignment)


def in_quarters(weight: Tensor) -> Tensor:
    """What `quartered` decodes to."""
    return quartered(weight).decode()
