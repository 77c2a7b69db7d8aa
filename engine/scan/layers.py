"""What a scan prunes one at a time, and the model without some of it.

The model itself is never written to. What is pruned is a shadow of it: the same parameters, with
zeroed copies in the place of the few tensors of the layer, and a state (buffers) of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.calling import call, copies
from engine.compaction.masked_dense import no_zeros_for, run_masked, zeroed
from engine.coupling import Coupling
from engine.scores.groups import group_keys
from engine.selection.schedule import share_of
from engine.structure import map_tensors
from engine.torchscript.program import Program, memory_of

Forward = Callable[[Sequence[Any]], Any]
"""Runs a model on arguments of forward; its outputs."""


@dataclass(frozen=True)
class ScannedLayer:
    """A layer, or layers whose channels live and die together.

    Attributes:
        name: unique in the scan.
        members: layers that lose channels (or the one weight).
        scores: one per channel or head, or of the weight's shape; NaN for what must stay. float64
            on the CPU.
        without: the model without so many of the lowest scores.
    """

    name: str
    members: list[str]
    scores: Tensor
    without: Callable[[int], Forward]

    @property
    def units(self) -> int:
        """Channels, heads or weights."""
        return self.scores.numel()

    @property
    def removable(self) -> int:
        """How many may go; one always stays."""
        return min(int((~self.scores.isnan()).sum()), self.units - 1)

    def count(self, ratio: float) -> int:
        """How many go at a ratio: the share of all, rounded half up, of those that may."""
        return min(share_of(ratio, self.units), self.removable)


def forward_of(program: Program) -> Forward:
    """The model whole; what it writes to its buffers is lost."""
    own = program.shadow()
    return lambda inputs: call(own.module, inputs)


def channel_layers(
    program: Program, coupling: Coupling, scores: NDArray[np.float64]
) -> list[ScannedLayer]:
    """The groups of a coupling.

    Args:
        program: the one the coupling was found on.
        coupling: components and groups.
        scores: one per component, NaN for those that must stay.
    """
    members = _members(coupling)

    def layer(key: str, components: NDArray[np.int64], layers: list[str]) -> ScannedLayer:
        own = scores[components]
        # NaN sorts last, and `count` never reaches it.
        ranked = components[np.argsort(own, kind="stable")]
        return ScannedLayer(
            name=key,
            members=layers,
            scores=torch.from_numpy(own.copy()),
            without=lambda count: _without_channels(program, coupling, np.sort(ranked[:count])),
        )

    return [
        layer(key, group.components, layers)
        for key, group, layers in zip(
            group_keys(coupling.groups), coupling.groups, members, strict=True
        )
    ]


def weight_layers(
    program: Program, weights: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> list[ScannedLayer]:
    """Weights whose elements are masked, tied ones once.

    Args:
        weights: parameters by name.
        scores: of their shapes, on the CPU.
    """

    def layer(name: str, weight: Tensor) -> ScannedLayer:
        own = scores[name].double()
        return ScannedLayer(
            name=name,
            members=[name],
            scores=own,
            without=lambda count: _without_elements(program, weight, own, count),
        )

    return [layer(name, weight) for name, weight in weights.items()]


def _members(coupling: Coupling) -> list[list[str]]:
    """The layers that produce the channels of each group."""
    owner = np.full(coupling.component_count, -1, dtype=np.int64)
    for number, group in enumerate(coupling.groups):
        owner[group.components] = number
    found: list[dict[str, None]] = [{} for _ in coupling.groups]
    for item in coupling.slices:
        if item.role == "output":
            for number in np.unique(owner[item.component[item.component >= 0]]):
                found[number][item.tensor.rpartition(".")[0] or item.tensor] = None
    return [list(layers) for layers in found]


def _without_channels(program: Program, coupling: Coupling, removed: NDArray[np.int64]) -> Forward:
    if not no_zeros_for(coupling, removed):
        return forward_of(zeroed(program, coupling, removed))
    # Zeros in attributes would be another model: run it step by step, masked as it is read.
    joint = coupling.methods.join(program)

    def run(inputs: Sequence[Any]) -> Any:
        wide = [map_tensors(value, _wide) for value in copies(inputs)]
        outputs = run_masked(joint, coupling, removed, coupling.methods.inputs(program, wide))
        return coupling.methods.apart(outputs)[0]

    return run


@torch.no_grad()
def _without_elements(program: Program, weight: Tensor, scores: Tensor, count: int) -> Forward:
    gone = torch.zeros(scores.numel(), dtype=torch.bool)
    gone[torch.argsort(scores.reshape(-1), stable=True)[:count]] = True
    # Filling, not multiplying: infinity times zero would be NaN.
    masked = weight.detach().clone()
    masked.masked_fill_(gone.reshape(scores.shape).to(weight.device), 0.0)
    shadow = program.twin(share=True)
    for name, tensor in program.attributes().items():
        if memory_of(tensor) == memory_of(weight):
            shadow.set_tensor(name, masked)
    return forward_of(shadow)


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value
