"""Values of criteria that work one out for every weight, checked."""

from __future__ import annotations

import torch

from engine.errors import CriterionDoesNotFit
from engine.scores.registry import Maps


def finite(maps: Maps, criterion: str) -> Maps:
    """The same maps.

    Raises:
        CriterionDoesNotFit: a value is NaN or infinite, which cannot be ranked.
    """
    for name, values in maps.items():
        if not bool(torch.isfinite(values).all()):
            raise CriterionDoesNotFit(
                f"`{criterion}` gives values for the weight `{name}` that are no finite numbers",
                hint="the model or the dataset holds NaN, or the loss is beyond the range of the "
                "weights' type; use a criterion of weights, such as `l1_norm`",
                where="criterion",
            )
    return maps
