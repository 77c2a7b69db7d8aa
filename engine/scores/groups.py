"""Names of groups that are unique within a coupling, and stable when it is found again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from engine.coupling import Group


def group_keys(groups: Sequence[Group]) -> list[str]:
    """One key per group: its name, with `#2`, `#3`, ... where a layer has several groups.

    A layer whose own name is such a key keeps it; the other takes the next number.
    """
    names = {group.name for group in groups}
    last: Counter[str] = Counter()
    keys = []
    for group in groups:
        key = group.name
        last[key] += 1
        while last[group.name] > 1 and (key := f"{group.name}#{last[group.name]}") in names:
            last[group.name] += 1
        keys.append(key)
    return keys
