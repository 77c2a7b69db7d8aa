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

    Where another branch lies under the same path (the attention and the feed-forward branch of one
    block), the name goes on to the branch's first layer.
    """
    paths = [common_path(names) for names in weights]
    keys = []
    for index, (path, names) in enumerate(zip(paths, weights, strict=True)):
        others = paths[:index] + paths[index + 1 :]
        if not path or any(f"{other}.".startswith(f"{path}.") for other in others):
            first = names[0].rpartition(".")[0] or names[0]
            rest = first.removeprefix(path).strip(".").split(".")[0]
            path = ".".join(part for part in (path, rest) if part)  # noqa: PLW2901
        keys.append(path)
    return _unique(keys)


def _unique(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        seen[name] += 1
        keys.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return keys
