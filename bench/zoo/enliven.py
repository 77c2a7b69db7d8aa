"""Weights that make the outputs depend on the inputs.

Fresh networks hide mistakes: heads and residual scales that start at zero, statistics of batch
norms at their defaults, layer scales of 1e-6. A certificate over outputs that are constant proves
little. So what starts at zero or next to it is drawn at random, layers keep the scale of what they
read (He et al. 2015), and norms get statistics as if trained. Sizes and structure stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SMALL = 1e-4


@torch.no_grad()
def enliven(model: nn.Module) -> nn.Module:
    """Draw anew what is (almost) zero, and the statistics of batch norms; in place."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _statistics(module)
        elif isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            # The default of these layers shrinks activations by half and more at each of them.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1:
            _waken(parameter)
    return model


def _statistics(norm: nn.modules.batchnorm._BatchNorm) -> None:
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.normal_(norm.bias, std=0.1)
    if norm.running_mean is not None and norm.running_var is not None:
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)


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
