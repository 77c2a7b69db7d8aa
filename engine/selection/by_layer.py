"""How many units each layer loses in all, where its size alone does not say.

The numbers are found once, before the first round of a stage, and the rounds of a schedule
share them out (`engine.selection.schedule`): a threshold is held against the scores of that
moment, a standard deviation is that of the weights of that moment. So every schedule removes
exactly what one shot would.

- `layers`: fractions by name pattern, the first that matches a layer decides.
- `threshold` t: n_l = #{i in l : s_i < t}, scores as `normalize` leaves them.
- `quality` q: n_l = #{w in l : |w| < q sigma_l}, sigma_l the standard deviation (population) of
  the layer's weights that are not masked (Han et al. 2015: "the pruning threshold is chosen as a
  quality parameter multiplied by the standard deviation of a layer's weights").
- `distribution: erdos_renyi` and `erdos_renyi_plain`: see `engine.selection.apportion`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Allocation

from engine.errors import NothingPruned, PatternMatchesNothing
from engine.selection.apportion import kept_by_ratio, kernel_ratio, plain_ratio
from engine.selection.schedule import final_count, share_of


@dataclass(frozen=True)
class Unit:
    """What an allocation sees of a layer, or of layers whose channels are coupled.

    Attributes:
        name: its key.
        layers: names of the layers that produce the channels, or that hold the weight.
        size: channels or weights, those that went before this stage not counted for channels.
        shapes: of the weights.
        scores: of its channels or weights; NaN for those that must stay.
        magnitudes: |w| of what is not masked; empty where units are no weights.
        gone: units among `size` that are masked already; their scores are below all others.
    """

    name: str
    layers: Sequence[str]
    size: int
    shapes: Sequence[Sequence[int]]
    scores: NDArray[np.float64]
    magnitudes: NDArray[np.float64]
    deviation: float = 0.0
    gone: int = 0


def totals(allocation: Allocation, units: Sequence[Unit]) -> dict[str, int]:
    """How many of each layer go in all, by name.

    Raises:
        PatternMatchesNothing: a pattern of `layers` decides for no layer that can be pruned.
        NothingPruned: a threshold would leave a layer empty.
    """
    if allocation.layers is not None:
        return _by_pattern(allocation, allocation.layers, units)
    if allocation.threshold is not None:
        limit = allocation.threshold
        below = {unit.name: int((unit.scores < limit).sum()) for unit in units}
        return _none_empty(below, units, f"threshold: {limit}", "threshold")
    if allocation.quality is not None:
        quality = allocation.quality
        below = {
            unit.name: unit.gone + int((unit.magnitudes < quality * unit.deviation).sum())
            for unit in units
        }
        return _none_empty(below, units, f"quality: {quality}", "quality")
    return _erdos_renyi(allocation, units)


def _by_pattern(
    allocation: Allocation, fractions: Mapping[str, float], units: Sequence[Unit]
) -> dict[str, int]:
    unused = dict.fromkeys(fractions)
    found = {}
    for unit in units:
        pattern = next((text for text in fractions if _matches(text, unit.layers)), None)
        if pattern is not None:
            unused.pop(pattern, None)
            found[unit.name] = share_of(fractions[pattern], unit.size)
        else:
            found[unit.name] = (
                0 if allocation.amount is None else final_count(allocation, unit.size)
            )
    for pattern in unused:
        raise _decides_nothing(pattern, fractions, units)
    return found


def _matches(pattern: str, layers: Collection[str]) -> bool:
    return any(fnmatchcase(layer, pattern) for layer in layers)


def _decides_nothing(
    pattern: str, fractions: Mapping[str, float], units: Sequence[Unit]
) -> PatternMatchesNothing:
    for unit in units:
        if _matches(pattern, unit.layers):
            first = next(text for text in fractions if _matches(text, unit.layers))
            return PatternMatchesNothing(
                f"the pattern `{pattern}` decides for no layer: `{first}` comes first for "
                f"`{unit.name}`",
                where=f"allocation.layers.{pattern}",
                hint="the first pattern that matches decides; put the narrower one first. Layers "
                "whose channels are coupled lose the same ones, and one pattern decides for all: "
                f"here {', '.join(unit.layers)}",
            )
    names = sorted({layer for unit in units for layer in unit.layers})
    close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
    return PatternMatchesNothing(
        f"the pattern `{pattern}` matches no layer that can be pruned",
        where=f"allocation.layers.{pattern}",
        hint=f"layers of this model that can be are for example {', '.join(close) or '(none)'}; "
        "what cannot be pruned or is excluded needs no fraction",
    )


def _none_empty(
    below: dict[str, int], units: Sequence[Unit], words: str, field: str
) -> dict[str, int]:
    for unit in units:
        if unit.size > 1 and below[unit.name] >= unit.size:
            measured = unit.magnitudes / unit.deviation if field == "quality" else unit.scores
            raise NothingPruned(
                f"`{words}` would leave the layer `{unit.name}` empty: all {unit.size} of it are "
                "below",
                hint=f"lower it (the largest of the layer is {np.max(measured):.4g}), `exclude` "
                "the layer, or remove an `amount`",
                where=f"allocation.{field}",
            )
    return below


def _erdos_renyi(allocation: Allocation, units: Sequence[Unit]) -> dict[str, int]:
    sizes = [unit.size for unit in units]
    keep = sum(sizes) - final_count(allocation, sum(sizes))
    ratio = plain_ratio if allocation.distribution == "erdos_renyi_plain" else kernel_ratio
    kept = kept_by_ratio([ratio(unit.shapes) for unit in units], sizes, keep)
    return {unit.name: unit.size - left for unit, left in zip(units, kept, strict=True)}
