"""Scores of single weights."""

from __future__ import annotations

import torch
from secateur.recipe import Normalize
from torch import Tensor

from engine.scores.registry import Criterion
from engine.seeds import generator


def element_scores(
    name: str, weight: Tensor, criterion: Criterion, *, normalize: Normalize, seed: int
) -> Tensor:
    """A score for every element of a weight, on the CPU, shape of the weight.

    Args:
        name: the weight's name, which seeds random scores.
        weight: any floating tensor.
        criterion: how an element is scored.
        normalize: by what of the weight's own scores they are divided.
        seed: for random criteria.
    """
    if criterion.draw is not None:
        drawn = criterion.draw(weight.numel(), generator(seed, "random", name))
        return drawn.reshape(weight.shape)
    if criterion.elements is None:
        raise TypeError(f"criterion `{criterion.name}` does not score weights")
    detached = weight.detach()
    scores = criterion.elements(detached.float() if detached.element_size() < 4 else detached)
    if normalize != "none":
        scale = scores.mean() if normalize == "mean" else scores.max()
        if bool(scale > 0):
            scores = scores / scale
    return torch.as_tensor(scores, device="cpu")
