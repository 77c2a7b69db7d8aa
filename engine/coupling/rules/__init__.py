"""One rule per compute operator; importing this package registers them all."""

from engine.coupling.rules import (
    attention,
    contraction,
    convolution,
    distance,
    einsum,
    indexing,
    movement,
    normalization,
    pointwise,
    recurrent,
    reduction,
    shape,
)

__all__ = [
    "attention",
    "contraction",
    "convolution",
    "distance",
    "einsum",
    "indexing",
    "movement",
    "normalization",
    "pointwise",
    "recurrent",
    "reduction",
    "shape",
]
