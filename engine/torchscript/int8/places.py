"""Names of a program's operators that do not change when it is saved and loaded.

An operator is called by its kind and its number among its kind, in the order of the graph, blocks
inside included: `conv2d_0`, `relu_3`. Its output is the place of that name; what it reads at
position 1 is the place `cat_0.1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def operator_names(kinds: Iterable[str]) -> Iterator[str]:
    """A name for each operator, in order; nothing for what is none."""
    counts: dict[str, int] = {}
    for kind in kinds:
        if not kind.startswith("aten::"):
            yield ""
            continue
        short = kind.partition("::")[2]
        counts[short] = counts.get(short, -1) + 1
        yield f"{short}_{counts[short]}"


def operand_place(name: str, position: int) -> str:
    """The place of what an operator reads."""
    return f"{name}.{position}"
