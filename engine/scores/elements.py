"""Scores of single weights."""

from __future__ import annotations

import torch
from secateur.recipe import Normalize
from torch import Tensor

from engine.evidence.samples import Evidence
from engine.scores.registry import Criterion, Maps
from engine.scores.saliency import finite
from engine.seeds import generator
from engine.torchscript.program import Program


def element_saliency(
    program: Program, criterion: Criterion, evidence: Evidence | None
) -> Maps | None:
    """What a criterion works out for every weight, by name; None where it scores weights alone.

    Weights it cannot judge are left out. The values of criteria that square a channel's sum are
    those of each weight squared. float64, on the CPU.

    Raises:
        CriterionDoesNotFit: a value is no finite number.
    """
    if criterion.saliency is None:
        return None
    if evidence is None:
        raise TypeError(f"criterion `{criterion.name}` runs the program and was given nothing")
    total: Maps = {}
    for share, maps in criterion.saliency(program, evidence):
        for name, values in finite(maps, criterion.name).items():
            own = values.double()
            part = share * (own.square() if criterion.squared else own).cpu()
            total[name] = part if name not in total else total[name].add_(part)
    return total


def element_scores(
    name: str,
    weight: Tensor,
    criterion: Criterion,
    *,
    normalize: Normalize,
    seed: int,
    saliency: Tensor | None = None,
) -> Tensor:
    """A score for every element of a weight, on the CPU, shape of the weight.

    Args:
        name: the weight's name, which seeds random scores.
        weight: any floating tensor.
        criterion: how an element is scored.
        normalize: by what of the weight's own scores they are divided.
        seed: for random criteria.
        saliency: what the criterion worked out for this weight, see `element_saliency`.
    """
    if criterion.draw is not None:
        drawn = criterion.draw(weight.numel(), generator(seed, "random", name))
        return drawn.reshape(weight.shape)
    if saliency is not None:
        scores = saliency
    elif criterion.elements is not None:
        detached = weight.detach()
        scores = criterion.elements(detached.float() if detached.element_size() < 4 else detached)
    else:
        raise TypeError(f"criterion `{criterion.name}` does not score single weights")
    if normalize != "none":
        scale = scores.abs().mean() if normalize == "mean" else scores.abs().max()
        if bool(scale > 0):
            scores = scores / scale
    return torch.as_tensor(scores, device="cpu")
