r"""How far the features of a student are from those of its teacher.

With s and t the features of student and teacher, t over the channels that the student has left,
for a batch of B samples:

    mse         mean over all elements of (s - t)^2                (Romero et al. 2015, "FitNets",
                equation 3, without a regressor: the surviving channels are compared)
    cosine      mean over positions of 1 - <s_p, t_p> / (||s_p|| ||t_p||)    with s_p the channels
                at position p
    attention   mean over samples of || Q(s) / ||Q(s)|| - Q(t) / ||Q(t)|| ||^2,
                Q_p(a) = sum_c a_cp^2                             (Zagoruyko & Komodakis 2017,
                "Paying more attention to attention", section 3.1)

Attention sums over channels, so it needs no common ones: the teacher's map is that of all its
channels. Both maps are unit vectors without negative entries, so its loss lies in [0, 2], as that
of the cosine does. All are computed in float32, doubles in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

FeatureLoss = Callable[[Tensor, Tensor, int], Tensor]
_TINY: Final = 1e-12


def mse(student: Tensor, teacher: Tensor, channels: int) -> Tensor:  # noqa: ARG001  others need it
    """Mean squared difference; both of one shape."""
    return (_exact(student) - _exact(teacher)).square().mean()


def cosine(student: Tensor, teacher: Tensor, channels: int) -> Tensor:
    """1 - cosine of the channels at each position, mean over positions; both of one shape."""
    alike = torch.cosine_similarity(_exact(student), _exact(teacher), dim=channels, eps=_TINY)
    return 1 - alike.mean()


def attention(student: Tensor, teacher: Tensor, channels: int) -> Tensor:
    """Squared distance of the attention maps, mean over samples; channels may differ in number."""
    return (_map(student, channels) - _map(teacher, channels)).square().sum(dim=1).mean()


def _map(feature: Tensor, channels: int) -> Tensor:
    """Unit vectors, [samples, positions]."""
    summed = _exact(feature).square().sum(dim=channels).flatten(1)
    return torch.nn.functional.normalize(summed, dim=1, eps=_TINY)


def _exact(feature: Tensor) -> Tensor:
    return feature if feature.dtype == torch.float64 else feature.float()


FEATURE_LOSSES: Final[dict[str, FeatureLoss]] = {
    "mse": mse,
    "cosine": cosine,
    "attention": attention,
}
