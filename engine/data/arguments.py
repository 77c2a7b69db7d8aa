"""Arguments of a recipe or a dataset, held against what `forward` takes.

Asked before any work is spent, because the engine's interpreter takes what it is given and
TorchScript's own message does not say which item of a nested argument is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.data.columns import Column, Leaf, map_columns
from engine.data.splits import Split
from engine.errors import DatasetInvalid, InputsDoNotFit
from engine.torchscript.arguments import Argument, Misfit, arranged, fitted

_RECIPE = "recipe.inputs"


def fit_inputs(arguments: Sequence[Argument], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The inputs of a recipe as forward takes them.

    Raises:
        InputsDoNotFit: there are too few or too many, or one is of another type; names it.
    """
    positional = [argument for argument in arguments if not argument.keyword_only]
    if len(inputs) > len(positional):
        raise InputsDoNotFit(
            f"{len(inputs)} inputs are given, and forward takes {len(positional)}",
            hint=_takes(arguments),
            where=f"{_RECIPE}.{len(positional)}",
        )
    missing = _missing(arguments, len(inputs))
    if missing is not None:
        raise InputsDoNotFit(
            f"nothing is given for argument `{missing.name}` of forward, a "
            f"{missing.type.annotation_str}",
            hint=f"{_takes(arguments)}; add an entry to `inputs` for each argument, in order",
            where=_RECIPE,
        )
    found = []
    for position, (argument, value) in enumerate(zip(positional, inputs, strict=False)):
        try:
            found.append(fitted(argument.type, value))
        except Misfit as misfit:
            raise InputsDoNotFit(
                _title(argument, misfit),
                hint=misfit.hint,
                where=".".join([f"{_RECIPE}.{position}", *_recipe_path(value, misfit.path)]),
            ) from misfit
    return tuple(found)


def without_dataset(arguments: Sequence[Argument], given: Mapping[int, Any]) -> dict[int, Any]:
    """What arguments are, by position, where a dataset says nothing of them.

    Args:
        arguments: of forward.
        given: by the recipe; other arguments have their defaults.
    """
    defaults = {
        position: argument.default
        for position, argument in enumerate(arguments)
        if argument.optional and not argument.keyword_only
    }
    return defaults | dict(given)


def arrange_split(arguments: Sequence[Argument], split: Split) -> Split:
    """The split with nested arguments in the containers that forward takes.

    Raises:
        DatasetInvalid: an argument has no tensor, or its tensors make no value of its type.
    """
    missing = _missing(arguments, len(split.inputs))
    if missing is not None:
        raise DatasetInvalid(
            f"the `{split.name}` split has nothing for argument `{missing.name}` of forward, a "
            f"{missing.type.annotation_str}",
            hint=f"{_takes(arguments)}; add a tensor `{split.name}/inputs/{missing.name}`, or, "
            "where it takes no tensor, its value under `inputs` in the recipe",
            where=f"{split.name}/inputs/{missing.name}",
        )
    found = []
    for position, (argument, value) in enumerate(zip(arguments, split.inputs, strict=False)):
        try:
            default = argument.optional and value is argument.default
            found.append(value if default else _arranged(argument.type, value))
        except Misfit as misfit:
            path = "/".join(str(part) for part in [position, *misfit.path])
            raise DatasetInvalid(
                _title(argument, misfit),
                hint=f"name its tensors `{split.name}/inputs/{position}/` and then the key or "
                "index of each, as deep as the type is",
                where=f"{split.name}/inputs/{path}",
            ) from misfit
    return replace(split, inputs=tuple(found))


def _arranged(kind: Any, value: Any) -> Any:
    """The value as the type wants it; columns that are read later stand in as tensors."""
    behind: dict[int, Column] = {}
    stand_ins: list[Tensor] = []

    def stand_in(column: Leaf) -> Tensor:
        if isinstance(column, Tensor):
            return column
        stand_ins.append(torch.empty(0))
        behind[id(stand_ins[-1])] = column
        return stand_ins[-1]

    found = fitted(kind, arranged(kind, map_columns(value, stand_in)))
    return map_columns(found, lambda tensor: behind.get(id(tensor), tensor))


def _missing(arguments: Sequence[Argument], given: int) -> Argument | None:
    return next(
        (
            argument
            for position, argument in enumerate(arguments)
            if not argument.optional and (position >= given or argument.keyword_only)
        ),
        None,
    )


def _takes(arguments: Sequence[Argument]) -> str:
    listed = ", ".join(f"`{argument}`" for argument in arguments)
    return f"forward takes {listed or 'nothing'}"


def _title(argument: Argument, misfit: Misfit) -> str:
    whole = argument.type.annotation_str
    if not misfit.path:
        return f"argument `{argument.name}` of forward is a {whole}, and {misfit.given} is given"
    place = "/".join(str(part) for part in misfit.path)
    return (
        f"argument `{argument.name}` of forward is a {whole}; its item `{place}` is a "
        f"{misfit.wanted}, and {misfit.given} is given"
    )


def _recipe_path(value: Any, path: Sequence[str | int]) -> list[str]:
    """The path as the recipe writes it: `dict.image`, `list.0`."""
    parts = []
    for key in path:
        parts += [type(value).__name__, str(key)]
        value = value[key]
    return parts
