"""Names of groups that are unique within a coupling, and stable when it is found again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from engine.coupling import Group


def group_keys(groups: Sequence[Group]) -> list[str]:
    """One key per group: its name, with `#2`, `#3`, ... where a layer has several groups."""
    seen: Counter[str] = Counter()
    keys = []
    for group in groups:
        seen[group.name] += 1
        number = seen[group.name]
        keys.append(group.name if number == 1 else f"{group.name}#{number}")
    return keys
