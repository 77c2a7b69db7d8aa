"""Which indices of each tensor survive a removal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.coupling import Coupling
from engine.coupling.labels import Dimension, Labels
from engine.tape import TensorValue

Components = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class _Known(NamedTuple):
    """Of one dimension; it holds the array that it is known by, whose id must stay its own."""

    components: Labels
    mask: Mask
    survivors: int
    kept: torch.Tensor | None


class Survivors:
    """Answers for one coupling and one set of removed components."""

    def __init__(self, coupling: Coupling, removed: Components) -> None:
        self._gone = np.zeros(coupling.component_count + 1, bool)
        self._gone[removed] = True  # index -1 (fixed) is the last entry and stays False
        self._coupling = coupling
        self._kept: dict[int, dict[int, torch.Tensor]] = {}
        self._known: dict[int, _Known] = {}

    def mask(self, components: Dimension, size: int) -> Mask:
        """True where an index survives; all true for a dimension without components."""
        return np.ones(size, bool) if components is None else self._of(components).mask

    def _of(self, components: Labels) -> _Known:
        """What is known of a dimension; many tensors share theirs."""
        known = self._known.get(id(components))
        if known is None:
            gone = self._gone[components]
            mask = np.asarray(~gone if gone.ndim == 1 else ~gone.any(axis=0))
            indices = np.flatnonzero(mask)
            kept = None if indices.size == mask.size else torch.from_numpy(indices)
            known = _Known(components, mask, indices.size, kept)
            self._known[id(components)] = known
        return known

    def shape(self, number: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a tensor of the tape after the removal."""
        labels = self._coupling.labels.get(number)
        if labels is None:
            return shape
        return tuple(
            size if own is None else self._of(own).survivors
            for own, size in zip(labels, shape, strict=True)
        )

    def kept(self, tensor: str) -> dict[int, torch.Tensor]:
        """For each dimension of a named tensor that shrinks, the int64 indices that stay."""
        return self.kept_of(self._coupling.tape.tensors[tensor])

    def kept_of(self, value: TensorValue) -> dict[int, torch.Tensor]:
        """The same for any tensor of the tape."""
        if value.number not in self._kept:
            self._kept[value.number] = self._indices(value)
        return self._kept[value.number]

    def _indices(self, value: TensorValue) -> dict[int, torch.Tensor]:
        labels = self._coupling.labels.get(value.number, [])
        kept = {dim: self._of(own).kept for dim, own in enumerate(labels) if own is not None}
        return {dim: indices for dim, indices in kept.items() if indices is not None}

    def cut(self, tensor: str, value: torch.Tensor) -> torch.Tensor:
        """The surviving part of a named tensor, contiguous in its memory format."""
        return _select(value, self.kept(tensor))

    def cut_value(self, value: TensorValue, content: torch.Tensor) -> torch.Tensor:
        """The surviving part of what a tensor of the tape held, in memory of its own."""
        return _select(content.clone(), self.kept_of(value))


def _select(content: torch.Tensor, kept: dict[int, torch.Tensor]) -> torch.Tensor:
    for dim, indices in kept.items():
        content = content.index_select(dim, indices.to(content.device))
    return content
