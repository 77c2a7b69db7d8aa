"""One rule per compute operator; importing this package registers them all."""

from engine.coupling.rules import (
    attention,
    contraction,
    convolution,
    indexing,
    movement,
    normalization,
    pointwise,
    reduction,
    shape,
)

__all__ = [
    "attention",
    "contraction",
    "convolution",
    "indexing",
    "movement",
    "normalization",
    "pointwise",
    "reduction",
    "shape",
]
