"""Whether the recipe's `data` fits the dataset, as far as shapes tell before the job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from secateur.recipe import Recipe
from secateur.recipe_data import Unfitting, transformed_shape
from secateur.resources import FieldProblem

Tensors = dict[str, dict[str, Any]]


def data_faults(recipe: Recipe, tensors: Tensors, *, files: bool) -> Iterator[FieldProblem]:
    """What does not fit.

    Args:
        recipe: of the job.
        tensors: of the dataset by name; none where only the job can tell.
        files: whether bytes in them are decoded from image files.
    """
    yield from _token_faults(recipe, tensors)
    for name, tensor in tensors.items():
        if name.endswith("/tokens"):
            continue
        yield from _shape_faults(recipe, name, tensor, files=files)


def _token_faults(recipe: Recipe, tensors: Tensors) -> Iterator[FieldProblem]:
    tokens = recipe.data.tokens
    for name, tensor in tensors.items():
        if not name.endswith("/tokens"):
            continue
        if tokens is None:
            yield FieldProblem(
                field="recipe.data.tokens",
                message=f"`{name}` is a stream of tokens; say how long a sample is, such as "
                "`data: {tokens: {window: 128}}`.",
            )
            return
        if tensor["shape"][0] < tokens.window + 1:
            yield FieldProblem(
                field="recipe.data.tokens.window",
                message=f"`{name}` has {tensor['shape'][0]} tokens; a window of {tokens.window} "
                f"and the token after it need {tokens.window + 1}.",
            )


def _shape_faults(
    recipe: Recipe, name: str, tensor: dict[str, Any], *, files: bool
) -> Iterator[FieldProblem]:
    key = name.partition("/")[2].removeprefix("inputs/")
    shape = list(tensor["shape"])
    files = files and len(shape) == 4 and tensor["dtype"] == "uint8"
    channels = recipe.data.images.channels
    if files and channels != "as_stored":
        shape[1] = {"gray": 1, "rgb": 3}[channels]
    if files and shape[1] is None:
        yield FieldProblem(
            field="recipe.data.images.channels",
            message=f"The images of `{name}` differ in their channels, or are neither gray nor "
            "RGB; say `data: {images: {channels: rgb}}` or `gray`.",
        )
        return
    chain = recipe.data.transforms.get(key, [])
    field = f"recipe.data.transforms.{key}"
    try:
        found = transformed_shape(chain, shape)
    except Unfitting as error:
        yield FieldProblem(field=f"{field}.{error.index}", message=f"`{name}`: {error}.")
        return
    if files and None in found and not _named_otherwise(recipe, key):
        yield FieldProblem(
            field=field,
            message=f"The images of `{name}` differ in size; make them alike, such as "
            f"`data: {{transforms: {{{key}: [{{kind: resize, size: [224, 224]}}]}}}}`.",
        )


def _named_otherwise(recipe: Recipe, key: str) -> bool:
    """Whether transforms name an argument in a way that only the model can resolve."""
    return any(not name[:1].isdigit() and name != key for name in recipe.data.transforms)
