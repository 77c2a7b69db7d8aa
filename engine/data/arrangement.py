"""Named columns of a file made into the splits of a dataset.

`train/inputs/0`, `train/targets/0`, `validation/inputs/0`, `unlabelled/inputs/0`, ... After
`inputs` comes the position of the `forward` argument, or its name; where the argument is a list,
a tuple or a dictionary, the path of the tensor inside it follows, such as `train/inputs/0/image`.
The first dimension counts samples and is equal within a split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from engine.data.columns import Leaf, samples_of
from engine.data.splits import Dataset, Split, SplitName
from engine.errors import DatasetInvalid

_INPUT = r"inputs/[A-Za-z_0-9.]+(/[^/\x00-\x1f]+){0,4}"
_NAME = re.compile(rf"(train|validation)/({_INPUT}|targets/[A-Za-z_0-9.]+)|unlabelled/{_INPUT}")


def arrange_columns(
    columns: Mapping[str, Leaf],
    arguments: Sequence[str],
    values: Mapping[int, Any],
    *,
    file: str,
    classes: Sequence[str] = (),
) -> Dataset:
    """The dataset that named columns make.

    Args:
        columns: by name.
        arguments: of `forward`, names in order.
        values: arguments that need no tensor, by position.
        file: its name, for errors.
        classes: names of the classes, by index, where the file has them.

    Raises:
        DatasetInvalid: a name means nothing, or they do not make a dataset; names the column.
    """
    if not columns:
        raise DatasetInvalid(
            "the dataset holds no tensors",
            hint="name them `train/inputs/0`, `train/targets/0`, `validation/inputs/0`, ...",
            where=file,
        )
    for name in columns:
        if not _NAME.fullmatch(name):
            raise DatasetInvalid(
                f"tensor `{name}` has a name that means nothing",
                hint="use `train/inputs/0`, `train/targets/0`, `validation/inputs/0`, ...: the "
                "position or name of the forward argument, and for a nested one the keys or "
                "indices below it (`train/inputs/0/image`)",
                where=name,
            )
    return Dataset(
        train=_split("train", columns, arguments, values),
        validation=_split("validation", columns, arguments, values),
        unlabelled=_split("unlabelled", columns, arguments, values),
        classes=tuple(classes),
    )


def _split(
    split: SplitName,
    columns: Mapping[str, Leaf],
    arguments: Sequence[str],
    values: Mapping[int, Any],
) -> Split | None:
    prefix = f"{split}/"
    mine = {name: column for name, column in columns.items() if name.startswith(prefix)}
    if not mine:
        return None
    for name, column in mine.items():
        if isinstance(column, Tensor) and column.dim() == 0:
            raise DatasetInvalid(
                f"tensor `{name}` is a single number",
                hint="its first dimension must count the samples",
                where=name,
            )
        if samples_of(column) == 0:
            raise DatasetInvalid(
                f"the `{split}` split is empty: `{name}` has no samples",
                hint="give at least one sample, or leave the split out",
                where=name,
            )
    first = next(iter(mine))
    samples = samples_of(mine[first])
    for name, column in mine.items():
        if samples_of(column) != samples:
            raise DatasetInvalid(
                f"`{name}` has {samples_of(column)} samples, `{first}` has {samples}",
                hint="every tensor of a split has the same first dimension",
                where=name,
            )
    given: dict[int, Any] = dict(values)
    order: dict[int, list[str]] = {}
    for name, column in mine.items():
        if name.startswith(f"{split}/inputs/"):
            position = _position(name, arguments)
            if position not in order:
                given.pop(position, None)
            order.setdefault(position, []).append(name)
            _place(given, (position, *name.split("/")[3:]), name, column)
    for position in range(max(order, default=0) + 1):
        if position not in given or not order:
            raise DatasetInvalid(
                f"the `{split}` split has no input for argument {position} of `forward`",
                hint=f"add a tensor `{split}/inputs/{position}`, or, where the argument takes "
                "none, its value under `inputs` in the recipe",
                where=f"{split}/inputs/{position}",
            )
    names = sorted((name for name in mine if name.startswith(f"{split}/targets/")), key=_by_index)
    targets = [mine[name] for name in names]
    return Split(
        name=split,
        inputs=tuple(given[position] for position in takewhile(given.__contains__, count())),
        input_names=tuple(name for position in sorted(order) for name in order[position]),
        targets=None if not targets else targets[0] if len(targets) == 1 else tuple(targets),
        target_name=names[0] if names else f"{split}/targets/0",
        more_target_names=tuple(names[1:]),
    )


def _place(whole: dict[int, Any], path: Sequence[Any], name: str, column: Leaf) -> None:
    """Put a tensor into nested dictionaries."""
    *parents, last = path
    tree: Any = whole
    for part in parents:
        tree = tree.setdefault(part, {}) if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or last in tree:
        raise DatasetInvalid(
            f"`{name}` stands where the dataset has another tensor",
            hint="give an argument one tensor, or one for each of its items, once",
            where=name,
        )
    tree[last] = column


def _position(name: str, arguments: Sequence[str]) -> int:
    key = name.split("/")[2]
    if key.isdigit():
        if int(key) < len(arguments):
            return int(key)
    elif key in arguments:
        return arguments.index(key)
    takes = ", ".join(f"`{argument}`" for argument in arguments) or "nothing"
    raise DatasetInvalid(
        f"`{name}` names no argument of the model's forward, which takes {takes}",
        hint="put the position or the name of an argument after `inputs/`",
        where=name,
    )


def _by_index(name: str) -> tuple[bool, int, str]:
    """Numbered targets in the order of their numbers, then named ones by name."""
    key = name.rpartition("/")[2]
    return not key.isdigit(), int(key) if key.isdigit() else 0, key
