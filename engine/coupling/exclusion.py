"""Glob patterns over layer names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from engine.errors import PatternMatchesNothing


def match_layers(
    layers: Sequence[str], patterns: Sequence[str], field: str = "exclude"
) -> dict[str, str]:
    """Each matched layer with the first pattern that matches it.

    Args:
        layers: names.
        patterns: of the recipe.
        field: of the recipe that holds them, for errors.

    Raises:
        PatternMatchesNothing: naming the pattern's position and the closest layer names.
    """
    matched: dict[str, str] = {}
    for index, pattern in enumerate(patterns):
        found = [layer for layer in layers if fnmatchcase(layer, pattern)]
        if not found:
            close = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.3) or list(layers[:3])
            raise PatternMatchesNothing(
                f"the pattern `{pattern}` matches no layer",
                where=f"{field}.{index}",
                hint=f"layers of this model are for example {', '.join(close)}; "
                "* matches any run of characters",
            )
        for layer in found:
            matched.setdefault(layer, pattern)
    return matched
