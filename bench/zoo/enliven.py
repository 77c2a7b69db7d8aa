"""Weights that make the outputs depend on the inputs.

Fresh networks hide mistakes: heads and residual scales that start at zero, statistics of batch
norms at their defaults, layer scales of 1e-6. A certificate over outputs that are constant proves
little. So what starts at zero or next to it is drawn at random, layers keep the scale of what they
read (He et al. 2015), and norms get statistics as if trained. Sizes and structure stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_SMALL = 1e-4


@torch.no_grad()
def enliven(model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """Draw anew what is (almost) zero, and give batch norms the statistics of a batch; in place.

    Args:
        inputs: arguments of forward, several samples of them.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            # The default of these layers shrinks activations by half and more at each of them.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for norm in norms:
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.normal_(norm.bias, std=0.1)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1:
            _waken(parameter)
    if norms:
        _take_statistics(model, norms, inputs)
    return model.eval()


def _take_statistics(
    model: nn.Module, norms: Sequence[_BatchNorm], inputs: Sequence[Tensor]
) -> None:
    """Mean and variance of one batch, layer by layer, so that activations keep their scale."""
    model.eval()
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(*inputs)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _waken(parameter: Tensor) -> None:
    if float(parameter.abs().max()) > _SMALL:
        return
    if parameter.dim() >= 2 and parameter.shape[1] > 1:
        nn.init.kaiming_uniform_(parameter, a=5**0.5)
    else:
        nn.init.uniform_(parameter, 0.1, 0.5)


@torch.no_grad()
def sensitivity(first: list[Tensor], second: list[Tensor]) -> float:
    """How far two outputs are apart, relative to the larger; 0 when they are the same."""
    far = 0.0
    for a, b in zip(first, second, strict=True):
        if a.is_floating_point() and a.numel() and a.shape == b.shape:
            scale = float(torch.maximum(a.abs().max(), b.abs().max()))
            far = max(far, float((a - b).abs().max()) / scale if scale > 0 else 0.0)
    return far
