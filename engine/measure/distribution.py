r"""How weights are distributed: before, after pruning and after retraining, in the same bins.

All states share equal bins over :math:`[-L, L]`, where :math:`L` is the largest absolute weight of
the original, at most 8 root mean squares (a few outliers would press all others into one bin). A
weight :math:`w \ne 0` counts in bin :math:`\lfloor B\,(w + L)\,/\,2L \rfloor`, one beyond the ends
in the end bin, one at :math:`L` in the last. Zeros are counted apart, for pruning makes many, and
so is what is not finite; together they are all the weights.

Weights are read a million at a time in float64, so a model of any size needs the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from secateur.report import DistributionState, LayerHistogram, WeightDistribution
from torch import Tensor

BINS = 32
MOST_LAYERS = 32
"""The largest tensors are shown one by one; a report of a large model stays small."""
_RANGE = 8.0
_CHUNK = 2**20


def start_distribution(weights: Mapping[str, Tensor]) -> WeightDistribution:
    """Bins fitted to the original, and its own distribution in them."""
    counted = _counted(weights)
    limit = _limit(counted)
    largest = sorted(counted, key=lambda name: -counted[name].numel())[:MOST_LAYERS]
    started = WeightDistribution(
        edges=torch.linspace(-limit, limit, BINS + 1, dtype=torch.float64).tolist(),
        states=[],
        unlisted_layers=len(counted) - len(largest),
    )
    names = [name for name in counted if name in set(largest)]
    started.states.append(_state("original", "original", counted, names, limit))
    return started


def add_state(
    distribution: WeightDistribution,
    state: Literal["pruned", "retrained"],
    label: str,
    weights: Mapping[str, Tensor],
) -> WeightDistribution:
    """The distribution with one more state, which takes the place of an earlier one of its kind.

    Args:
        label: of the step after which the weights are these.
        weights: by the names they had in the original.
    """
    names = [layer.name for layer in distribution.states[0].layers]
    added = _state(state, label, _counted(weights), names, distribution.edges[-1])
    others = [known for known in distribution.states if known.state != state]
    return distribution.model_copy(update={"states": [*others, added]})


def _counted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in weights.items()
        if tensor.dim() >= 2 and tensor.is_floating_point()
    }


def _state(
    state: Literal["original", "pruned", "retrained"],
    label: str,
    weights: Mapping[str, Tensor],
    names: list[str],
    limit: float,
) -> DistributionState:
    each = {name: _histogram(name, tensor, limit) for name, tensor in weights.items()}
    total = LayerHistogram(
        name="",
        counts=[sum(column) for column in zip(*(h.counts for h in each.values()), strict=True)]
        or [0] * BINS,
        zeros=sum(item.zeros for item in each.values()),
        not_finite=sum(item.not_finite for item in each.values()),
    )
    return DistributionState(
        state=state, label=label, total=total, layers=[each[name] for name in names if name in each]
    )


def _histogram(name: str, tensor: Tensor, limit: float) -> LayerHistogram:
    counts = torch.zeros(BINS, dtype=torch.int64)
    zeros = not_finite = 0
    for chunk in _chunks(tensor):
        finite = _finite(chunk)
        zeros += finite.numel() - int(torch.count_nonzero(finite))
        not_finite += chunk.numel() - finite.numel()
        counts += torch.histc(finite.clamp(-limit, limit), BINS, -limit, limit).long()
    # The middle of the range is computed exactly, for the bins are a power of two: zeros lie
    # in the first bin of the right half.
    counts[BINS // 2] -= zeros
    return LayerHistogram(name=name, counts=counts.tolist(), zeros=zeros, not_finite=not_finite)


def _limit(weights: Mapping[str, Tensor]) -> float:
    largest, squares, count = 0.0, 0.0, 0
    for tensor in weights.values():
        for chunk in _chunks(tensor):
            finite = _finite(chunk)
            if finite.numel():
                low, high = torch.aminmax(finite)
                largest = max(largest, -float(low), float(high))
                squares += float(torch.dot(finite, finite))
                count += finite.numel()
    limit = min(largest, _RANGE * math.sqrt(squares / count)) if count else 0.0
    return limit if 0.0 < limit < math.inf else 1.0


def _finite(chunk: Tensor) -> Tensor:
    """What is finite; the chunk itself where all is, which one sum tells of almost any."""
    if math.isfinite(float(chunk.sum())):
        return chunk
    return chunk[torch.isfinite(chunk)]


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """The elements in float64 on the CPU, a million at a time, in any order."""
    content = tensor.detach()
    # In the order they lie in memory, flattening copies nothing.
    strides = content.stride()
    order = sorted(range(content.dim()), key=lambda dim: -strides[dim])
    flat = content.permute(order).reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        yield flat[start : start + _CHUNK].cpu().double()
