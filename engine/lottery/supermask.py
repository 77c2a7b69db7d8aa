"""Supermasks: masked initial weights that work without being trained.

Zhou et al. 2019, "Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask" (NeurIPS). For
a mask m and the initial weights W_0 of a layer with standard deviation s, kept weights become

    values  init:           |W_0|
            constant:       s
            reshuffled:     the |W_0| of the kept weights in random order
            reinitialised:  |V|, V drawn anew as the layer was

times their sign, that of W_0 or a random one; and removed weights become

    removed  zero:            0
             init:            W_0
             zero_if_shrunk:  0 where |W_f| < |W_0| for the trained W_f, else W_0

With dynamic weight rescaling the kept weights are multiplied by N / sum m, N all of the layer's.
"""

from __future__ import annotations

import torch
from secateur.recipe import Supermask
from torch import Tensor

from engine.seeds import generator


def supermasked(
    name: str,
    mask: Tensor,
    options: Supermask,
    *,
    initial: Tensor,
    final: Tensor,
    drawn: Tensor,
    seed: int,
) -> Tensor:
    """The weights of one tensor under a mask.

    Args:
        name: of the tensor, which seeds what is random.
        mask: boolean, True where a weight is kept.
        options: of the recipe.
        initial: untrained weights.
        final: trained weights.
        drawn: weights drawn anew.
        seed: of the stage.

    Returns:
        Values of the shape and type of `initial`, on the CPU.
    """
    initial, final, drawn = (tensor.detach().cpu() for tensor in (initial, final, drawn))
    values = _values(name, mask, options, initial, drawn=drawn, seed=seed)
    if options.signs == "random":
        noise = generator(seed, "signs", name)
        signs = torch.randint(0, 2, initial.shape, generator=noise).to(initial.dtype) * 2 - 1
    else:
        signs = initial.sign()
    kept = values.abs() * signs
    if options.rescale:
        kept = kept * (mask.numel() / max(int(mask.sum()), 1))
    return torch.where(mask, kept, _removed(options, initial, final)).to(initial.dtype)


def _values(
    name: str, mask: Tensor, options: Supermask, initial: Tensor, *, drawn: Tensor, seed: int
) -> Tensor:
    if options.values == "constant":
        return torch.full_like(initial, float(initial.double().std(correction=0)))
    if options.values == "reinitialised":
        return drawn
    if options.values == "reshuffled":
        kept = initial[mask]
        order = torch.randperm(len(kept), generator=generator(seed, "reshuffle", name))
        shuffled = initial.clone()
        shuffled[mask] = kept[order]
        return shuffled
    return initial


def _removed(options: Supermask, initial: Tensor, final: Tensor) -> Tensor:
    if options.removed == "init":
        return initial
    zero = torch.zeros_like(initial)
    if options.removed == "zero":
        return zero
    return torch.where(final.abs() < initial.abs(), zero, initial)
