"""Parameters: their number, their bytes, their shapes, and the range of their values."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from secateur.report import Histogram, LayerReport
from torch import Tensor

from engine.torchscript.program import Program, memory_of

BINS = 64


def weights_of(program: Program) -> dict[str, Tensor]:
    """What counts as a parameter: floating parameters, or where there are none the constants.

    A program whose only numbers are baked into its graph is measured by those that have a
    dimension. Buffers are statistics and tables, and do not count.
    """
    parameters = program.parameters()
    if parameters:
        return parameters
    return {
        name: tensor
        for name, tensor in program.constants().items()
        if tensor.is_floating_point() and tensor.dim() > 0
    }


def parameter_count(weights: Mapping[str, Tensor]) -> int:
    """All elements."""
    return sum(tensor.numel() for tensor in weights.values())


def nonzero_count(weights: Mapping[str, Tensor]) -> int:
    """Elements that are not zero."""
    return sum(int(torch.count_nonzero(tensor)) for tensor in weights.values())


def memory_bytes(program: Program) -> int:
    """Bytes of parameters, buffers and baked constants in memory, tied ones once."""
    held = {memory_of(tensor): tensor for tensor in program.tensors().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def weight_range(weights: Mapping[str, Tensor]) -> tuple[float, float]:
    """Smallest and largest finite weight among tensors of two or more dimensions."""
    lows, highs = [], []
    for tensor in weights.values():
        if tensor.dim() < 2 or tensor.numel() == 0:
            continue
        low, high = (float(end) for end in torch.aminmax(tensor.detach()))
        if not (isfinite(low) and isfinite(high)):
            finite = tensor.detach()[torch.isfinite(tensor.detach())]
            if finite.numel() == 0:
                continue
            low, high = float(finite.min()), float(finite.max())
        lows.append(low)
        highs.append(high)
    return (min(lows), max(highs)) if lows else (0.0, 0.0)


def histogram(weights: Mapping[str, Tensor], limits: tuple[float, float]) -> Histogram:
    """Distribution of all weights of two or more dimensions between `limits`.

    Both models of a report share the limits, so their bars can be compared.
    """
    low, high = limits if limits[0] < limits[1] else (limits[0] - 0.5, limits[1] + 0.5)
    counts = torch.zeros(BINS, dtype=torch.float64)
    for tensor in weights.values():
        if tensor.dim() >= 2:
            counts += torch.histc(tensor.detach().float().cpu(), BINS, low, high).double()
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    return Histogram(edges=edges.tolist(), counts=[int(count) for count in counts])


def layer_reports(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[LayerReport]:
    """Every weight of two or more dimensions, before and after; names are the same in both."""
    reports = []
    for name, dense in before.items():
        if dense.dim() < 2 or name not in after:
            continue
        left = int(torch.count_nonzero(after[name]))
        reports.append(
            LayerReport(
                name=name,
                shape_before=list(dense.shape),
                shape_after=list(after[name].shape),
                nonzero_after=left,
                removed_fraction=1 - left / max(dense.numel(), 1),
                compression_ratio=dense.numel() / left if left else None,
            )
        )
    return reports
