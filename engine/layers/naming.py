"""Names of branches: the layers that they are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile


def common_path(names: Sequence[str]) -> str:
    """The longest layer path that the owners of these tensors have in common."""
    paths = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)


def branch_names(weights: Sequence[Sequence[str]]) -> list[str]:
    """A unique name for every branch, from the names of its weights in the order of the run.

    Where two have the same path in common, the name goes on to the first layer of each.
    """
    paths = [common_path(names) for names in weights]
    often = Counter(paths)
    for index, (path, names) in enumerate(zip(paths, weights, strict=True)):
        first = names[0].rpartition(".")[0] or names[0]
        if path and often[path] == 1:
            continue
        rest = first.removeprefix(path).strip(".").split(".")[0]
        paths[index] = ".".join(part for part in (path, rest) if part)
    return _unique(paths)


def _unique(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        seen[name] += 1
        keys.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return keys
