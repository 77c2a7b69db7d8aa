"""Groups: components of the same kind, which may be traded for each other.

Derivation. Two components are of the same kind when they have slices in exactly the same
dimensions of the same tensors. Each dimension adds a random 64-bit number to the signature of the
components it holds, once for each: equal signatures mean equal sets, but for a chance of about
n^2 / 2^64 (a sum over random numbers as the hash of a set; Carter and Wegman 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.coupling.slices import Slices

Components = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group:
    """Components that stand for the same kind of channel and may be traded for each other.

    All of them have slices in the same dimensions of the same tensors. At least one must survive.
    """

    name: str
    components: Components


def groups_of(slices: Sequence[Slices], count: int) -> list[Group]:
    """The partition of components 0 .. count - 1, in order of their first components.

    A group is named after the layer whose outputs it is; where there is none, after the first
    layer that holds it.
    """
    if count == 0:
        return []
    component, holder = _held(slices, count)
    numbers = np.random.default_rng(0).integers(1, 2**63, len(slices), dtype=np.uint64)
    signature = np.zeros(count, np.uint64)
    np.add.at(signature, component, numbers[holder])
    outputs = np.array([item.role == "output" for item in slices])
    rank = np.arange(len(slices)) + np.where(outputs, 0, len(slices))
    owner = np.full(count, 2 * len(slices), np.int64)
    np.minimum.at(owner, component, rank[holder])
    _, first, inverse = np.unique(signature, return_index=True, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    groups = []
    for position in np.argsort(first, kind="stable"):
        own = members[position]
        tensor = slices[int(owner[own[0]]) % len(slices)].tensor
        groups.append(Group(name=tensor.rpartition(".")[0] or tensor, components=own))
    return groups


def _held(slices: Sequence[Slices], count: int) -> tuple[Components, Components]:
    """Pairs of a component and a position in `slices` that holds it, each pair once."""
    component = np.concatenate([item.component for item in slices])
    holder = np.repeat(np.arange(len(slices)), [item.component.size for item in slices])
    removable = component >= 0
    component, holder = component[removable], holder[removable]
    pairs = holder * count + component
    if (pairs[1:] <= pairs[:-1]).any():  # components rise along most dimensions
        pairs = np.unique(pairs)
        holder, component = pairs // count, pairs % count
    return component, holder
