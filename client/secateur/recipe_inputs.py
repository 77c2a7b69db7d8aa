"""The recipe's `inputs`: what `forward` is called with, in the structure that it takes.

An entry is a tensor (`{shape: ...}`), a plain value (`{value: 3}`), or a group of entries
(`{list: [...]}`, `{tuple: [...]}`, `{dict: {key: ...}}`). The first key tells which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from secateur.recipe_base import RecipeModel

Dtype = Literal["float32", "float64", "float16", "bfloat16", "int64", "int32", "bool"]

MAX_DEPTH = 4
"""Groups within groups."""
MAX_ENTRIES = 256
"""Tensors and values in all."""

_FORMS = (
    "an input is a tensor `{shape: [1, 3, 224, 224]}`, a value `{value: 3}`, or a group of inputs: "
    "`{list: [...]}`, `{tuple: [...]}`, `{dict: {key: ...}}`"
)


class InputSpec(RecipeModel):
    """A tensor: an argument of the model's `forward`, or an item of one."""

    shape: list[Annotated[int, Field(ge=1)]]
    """Full shape of one example, batch dimension included."""
    dtype: Dtype = "float32"
    high: Annotated[int, Field(ge=1)] | None = None
    """Integer inputs only: exclusive upper bound of the random values (vocabulary size)."""

    @model_validator(mode="after")
    def _high_needs_integers(self) -> Self:
        if self.high is not None and not self.dtype.startswith("int"):
            raise ValueError(f"`high` bounds integer inputs; dtype is {self.dtype}")
        return self


class ValueInput(RecipeModel):
    """An argument that is no tensor, or an item that is none."""

    value: bool | int | float | str | None
    """Given as it is. `null` leaves out an optional argument."""

    @field_validator("value", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        # One message, where the alternatives of the type would give one each.
        if isinstance(value, float) and value - value != 0:
            raise ValueError("a value must be finite")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("an integer must fit into 64 bits")
        if isinstance(value, str) and len(value) > 4096:
            raise ValueError("a text has at most 4096 characters")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError("a value is a number, true or false, text or null; " + _FORMS)


class ListInput(RecipeModel):
    """An argument that is a list."""

    items: list[Input] = Field(alias="list")
    """Its items, in order."""


class TupleInput(RecipeModel):
    """An argument that is a tuple or a named tuple."""

    items: list[Input] = Field(alias="tuple")
    """Its items, in order."""


class DictInput(RecipeModel):
    """An argument that is a dictionary."""

    # YAML reads `{0: ...}` as a number; JSON has no such keys.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    entries: dict[Annotated[str, Field(min_length=1, max_length=200)], Input] = Field(alias="dict")
    """Its entries by key, in order; numbers are turned into what the model takes as keys."""


_KINDS = {"list": "ListInput", "tuple": "TupleInput", "dict": "DictInput", "value": "ValueInput"}


def _kind(entry: Any) -> str | None:
    if isinstance(entry, RecipeModel):
        return type(entry).__name__
    if not isinstance(entry, dict):
        return None
    return next((kind for key, kind in _KINDS.items() if key in entry), "InputSpec")


Input = Annotated[
    Annotated[InputSpec, Tag("InputSpec")]
    | Annotated[ValueInput, Tag("ValueInput")]
    | Annotated[ListInput, Tag("ListInput")]
    | Annotated[TupleInput, Tag("TupleInput")]
    | Annotated[DictInput, Tag("DictInput")],
    Discriminator(_kind, custom_error_type="input_form", custom_error_message=_FORMS),
]

for _group in (ListInput, TupleInput, DictInput):
    _group.model_rebuild()


def check_extent(inputs: Any) -> Any:
    """Hold raw entries against the limits, before anything recurses into them.

    Raises:
        ValueError: too deep or too many; names the entry.
    """
    waiting = [(f"inputs.{position}", entry, 0) for position, entry in _items(inputs)]
    entries = 0
    while waiting:
        path, entry, depth = waiting.pop()
        groups = [(key, group) for key, group in _fields(entry) if key in {"list", "tuple", "dict"}]
        if not groups:
            entries += 1
        if groups and depth == MAX_DEPTH:
            raise ValueError(f"`{path}` is nested deeper than {MAX_DEPTH} groups")
        for key, group in groups:
            waiting += [(f"{path}.{key}.{name}", item, depth + 1) for name, item in _items(group)]
    if entries > MAX_ENTRIES:
        raise ValueError(f"{entries} tensors and values are given; at most {MAX_ENTRIES} may be")
    return inputs


def _items(group: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(group, dict):
        yield from group.items()
    elif isinstance(group, list | tuple):
        yield from enumerate(group)


def _fields(entry: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(entry, dict):
        yield from entry.items()
    elif isinstance(entry, RecipeModel):
        for name, field in type(entry).model_fields.items():
            yield field.alias or name, getattr(entry, name)
