"""Slices: which index of which tensor belongs to which component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.coupling.tracker import Role


@dataclass(frozen=True, eq=False)
class Slices:
    """One dimension of one tensor, and the component each of its indices belongs to.

    Attributes:
        tensor: name of the parameter, buffer or `constant:<index>`.
        dim: the dimension.
        role: `output` (filters, neurons), `input` (what a weight reads) or `vector`.
        component: int64, one per index; -1 where the index cannot be removed.
    """

    tensor: str
    dim: int
    role: Role
    component: npt.NDArray[np.int64]
