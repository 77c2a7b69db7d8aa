"""What cannot be removed, said where a plan came to nothing."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.report import Frozen


def frozen_hint(frozen: Sequence[Frozen]) -> str:
    """What cannot be removed, the largest first, with the reasons."""
    if not frozen:
        return "the model has no weights whose channels could be removed"
    largest = sorted(frozen, key=lambda item: -item.channels)[:5]
    listed = "; ".join(
        f"{item.layer} ({item.channels} channels): {item.reason}" for item in largest
    )
    more = f"; and {len(frozen) - len(largest)} more" if len(frozen) > len(largest) else ""
    return f"these cannot be removed: {listed}{more}"
