"""The transforms of a recipe, put before the columns of a dataset that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from secateur.recipe_data import GEOMETRIC, Data
from torch import Tensor

from engine.data.columns import Column, Leaf, rows_of, samples_of
from engine.data.transforms import Chain, Transformed
from engine.errors import DatasetInvalid

_FIELD = "recipe.data.transforms"


def transformed(
    columns: Mapping[str, Leaf], data: Data, arguments: Sequence[str]
) -> dict[str, Leaf]:
    """The columns with every sample transformed as the recipe says.

    Image files become fractions whether they have transforms or not.

    Args:
        columns: by name.
        data: of the recipe.
        arguments: of `forward`, names in order.

    Raises:
        DatasetInvalid: a transform names no input or target of the dataset, or does not fit.
    """
    used: set[str] = set()
    chains = {name: _chain(_key(name), data, arguments, used) for name in columns}
    for key in data.transforms:
        if key not in used:
            names = ", ".join(f"`{one}`" for one in sorted({_key(name) for name in columns}))
            raise DatasetInvalid(
                f"transforms are given for `{key}`, and the dataset has {names or 'nothing'}",
                hint="name an input by its position or argument (`0`), a target as `targets/0`",
                where=f"{_FIELD}.{key}",
            )
    found = {name: _behind(column, chains[name]) for name, column in columns.items()}
    for name, column in found.items():
        if isinstance(column, Transformed) and samples_of(column):
            first = column.take(torch.tensor([0]))  # tells whether the chain fits
            _check_moved_together(name, first, found, chains)
    return found


def _behind(column: Leaf, chain: Chain | None) -> Leaf:
    if chain is None and isinstance(column, Column) and column.are_images:
        chain = Chain((), _FIELD)
    if chain is None or (isinstance(column, Tensor) and column.dim() == 0):
        return column
    return Transformed(column, chain)


def _key(name: str) -> str:
    """How the recipe names a column: `0` for `train/inputs/0`, `targets/0` for a target."""
    return name.partition("/")[2].removeprefix("inputs/")


def _chain(key: str, data: Data, arguments: Sequence[str], used: set[str]) -> Chain | None:
    names = [key, *_other_names(key, arguments)]
    given = next((name for name in names if name in data.transforms), None)
    if given is None:
        return None
    used.add(given)
    target = key.startswith("targets/")
    return Chain(data.transforms[given], f"{_FIELD}.{given}", target=target)


def _other_names(key: str, arguments: Sequence[str]) -> list[str]:
    """An argument by name where the key has its position, and the other way round."""
    first, slash, rest = key.partition("/")
    if first == "targets":
        return []
    if first.isdigit():
        return [f"{arguments[int(first)]}{slash}{rest}"] if int(first) < len(arguments) else []
    return [f"{arguments.index(first)}{slash}{rest}"] if first in arguments else []


def _check_moved_together(
    name: str, first: Tensor, columns: Mapping[str, Leaf], chains: Mapping[str, Chain | None]
) -> None:
    """Where an input is moved, a target that is an image as well has to move along."""
    chain = chains[name]
    if chain is None or chain.target or first.dim() < 3:
        return
    if not any(isinstance(transform, GEOMETRIC) for transform in chain.transforms):
        return
    targets = f"{name.partition('/')[0]}/targets/"
    for other, column in columns.items():
        if not other.startswith(targets) or chains[other] is not None or not samples_of(column):
            continue
        if rows_of(column, torch.tensor([0])).dim() >= 3:
            raise DatasetInvalid(
                f"`{chain.field}` moves pixels, and the targets `{other}` stay where they are",
                hint=f"give `{_key(other)}` the same kinds of transforms at the same places",
                where=chain.field,
            )
