"""The space of a search: from paths and values to recipes, and which of them are valid.

A *point* gives a value to every path. The *corners* are the points with each range at one of its
ends and each list at any of its values: what validates there, validates in between as far as
fields can be told apart by their limits. A trial is validated again when it is drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

MOST_CORNERS = 256
"""Spaces of more corners are tried along their edges: one value at a time, the others at their
first, then at their last."""
_LAYERS = "allocation.layers."
_DIGITS = 12
_NAMED = 4


class Range(Protocol):
    """What a range of a space has; see `secateur.recipe_search.Span`."""

    @property
    def low(self) -> int | float: ...  # noqa: D102
    @property
    def high(self) -> int | float: ...  # noqa: D102
    @property
    def step(self) -> int | float | None: ...  # noqa: D102
    @property
    def log(self) -> bool: ...  # noqa: D102


Dimension = Range | list[Any]
Space = Mapping[str, Any]
"""Ranges and lists by path. (A protocol and a list in one type are more than a mapping takes.)"""
Point = dict[str, Any]


class NoSuchPlace(Exception):
    """A path leads to nothing that a recipe has."""


@dataclass(frozen=True)
class SpaceFault:
    """What is wrong with the recipe at some point, told of the path to blame."""

    path: str
    message: str


def path_fault(path: str) -> str | None:
    """Why the path cannot vary, or None."""
    parts = parts_of(path)
    if parts[0] != "stages" or len(parts) < 3 or not parts[1].isdigit():
        return "what varies is in the stages: `stages.0.allocation.amount`"
    if "" in parts:
        return "a path is names with one dot between them"
    return None


def parts_of(path: str) -> list[str]:
    """The steps of a path; a pattern over layer names is one step, dots or not."""
    head, found, pattern = path.partition(_LAYERS)
    steps = f"{head}{found}".rstrip(".").split(".")
    return [*steps, pattern] if found else steps


def is_whole(span: Range) -> bool:
    """Whether the values of a range are whole numbers."""
    given = (span.low, span.high, span.step)
    return all(isinstance(number, int) for number in given if number is not None)


def steps_of(dimension: Any) -> list[Any] | None:
    """All values of a dimension in order; None where a range has no steps."""
    count = count_of(dimension)
    return None if count is None else [value_at(dimension, index) for index in range(count)]


def value_at(dimension: Any, index: int) -> Any:
    """One of the values of `steps_of`, without the others."""
    if isinstance(dimension, list):
        return dimension[index]
    step = 1 if dimension.step is None else dimension.step
    return _exact(dimension, dimension.low + index * step)


def _exact(span: Range, number: float) -> int | float:
    return int(number) if is_whole(span) else round(number, _DIGITS)


def number_of_points(space: Space) -> int | None:
    """How many points the space has; None where it is a continuum."""
    count = 1
    for dimension in space.values():
        steps = count_of(dimension)
        if steps is None:
            return None
        count *= steps
    return count


def count_of(dimension: Any) -> int | None:
    """How many values a dimension has; None where a range has no steps."""
    if isinstance(dimension, list):
        return len(dimension)
    if dimension.step is not None:
        steps = (dimension.high - dimension.low) / dimension.step
        return math.floor(float(steps) + 1e-9) + 1
    return int(dimension.high - dimension.low) + 1 if is_whole(dimension) else None


def corners(space: Space) -> Iterator[Point]:
    """The corners, or where these are too many the points along the edges."""
    ends = {path: _ends(dimension) for path, dimension in space.items()}
    if math.prod(len(values) for values in ends.values()) <= MOST_CORNERS:
        for corner in product(*ends.values()):
            yield dict(zip(ends, corner, strict=True))
        return
    for place in (0, -1):
        rest = {path: values[place] for path, values in ends.items()}
        for path, values in ends.items():
            for value in values:
                yield rest | {path: value}


def _ends(dimension: Any) -> list[Any]:
    if isinstance(dimension, list):
        return dimension
    count = count_of(dimension)
    if count is None:
        return [dimension.low, dimension.high]
    return [value_at(dimension, 0), value_at(dimension, count - 1)]


def at_point(base: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe at a point, as plain data. What is missing on the way to a path is made, and
    patterns over layers stand before those of the base, in the order of the point.

    Raises:
        NoSuchPlace: a path leads past the end of a list, or through a value.
    """
    recipe = deepcopy(dict(base))
    for path, value in point.items():
        *way, last = parts_of(path)
        here: Any = recipe
        for part in way:
            here = _step(here, part, path)
        if isinstance(here, list):
            _step(here, last, path)
            here[int(last)] = deepcopy(value)
        else:
            here[last] = deepcopy(value)
    for path in reversed(list(point)):
        *way, last = parts_of(path)
        if f".{_LAYERS}" in path:
            # of several patterns the first that matches decides
            patterns: Any = recipe
            for part in way:
                patterns = _step(patterns, part, path)
            given = patterns.pop(last)
            others = dict(patterns)
            patterns.clear()
            patterns.update({last: given, **others})
    return recipe


def _step(here: Any, part: str, path: str) -> Any:
    found: Any
    if isinstance(here, list):
        if not part.isdigit() or int(part) >= len(here):
            raise NoSuchPlace(f"`{path}`: there are {len(here)} of these, counted from 0")
        found = here[int(part)]
    else:
        if here.get(part) is None:
            here[part] = {}
        found = here[part]
    if not isinstance(found, dict | list):
        raise NoSuchPlace(f"`{path}`: `{part}` is the value `{found}` and has no fields")
    return found


def space_faults(
    base: Mapping[str, Any], space: Space, validate: Callable[[dict[str, Any]], object]
) -> list[SpaceFault]:
    """What is wrong at the corners, once for each path to blame.

    Args:
        base: the recipe without its search, as it was written.
        space: what varies.
        validate: checks a whole recipe; raises pydantic's ValidationError.
    """
    found: dict[str, str] = {}
    for path in space:
        try:
            at_point(base, {path: None})
        except NoSuchPlace as fault:
            found[path] = str(fault)
    if not found:
        for point in corners(space):
            try:
                validate(at_point(base, point))
            except ValidationError as error:
                for path, message in _blamed(point, error):
                    found.setdefault(path, message)
    return [SpaceFault(path, message) for path, message in found.items()]


def space_error(title: str, faults: Sequence[SpaceFault], written: object) -> ValidationError:
    """The faults as pydantic's own error, each at `search.space` and its path."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(
                type=PydanticCustomError("search_space", "{message}", {"message": fault.message}),
                loc=("search", "space", fault.path),
                input=written,
            )
            for fault in faults
        ],
    )


def blamed_path(paths: Iterable[str], location: Sequence[int | str], message: str) -> str:
    """The path that leads nearest to a location that pydantic names, tags of unions included; of
    several, the one whose field the message speaks of."""

    def nearness(path: str) -> tuple[int, bool]:
        parts = parts_of(path)
        return _agreement(parts, location), re.search(
            rf"`{re.escape(parts[-1])}\b", message
        ) is not None

    return max(paths, key=nearness)


def _blamed(point: Point, error: ValidationError) -> Iterator[tuple[str, str]]:
    for fault in error.errors(include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        path = blamed_path(point, fault["loc"], message)
        if fault["type"] == "extra_forbidden":
            yield path, f"a recipe has no such field: `{fault['loc'][-1]}`"
            continue
        stage = parts_of(path)[:2]
        near = {p: value for p, value in point.items() if parts_of(p)[:2] == stage}
        yield path, f"with {named(near)}: {message}"


def named(point: Mapping[str, Any]) -> str:
    """A point in a sentence, its first values if there are many."""
    few = list(point.items())[:_NAMED]
    values = ", ".join(f"`{path}: {shown(value)}`" for path, value in few)
    return values if len(few) == len(point) else f"{values} and {len(point) - len(few)} more"


def shown(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value)


def _agreement(parts: list[str], location: Sequence[int | str]) -> int:
    """How many steps of a path are met, in order, on the way to a location."""
    met = 0
    for part in location:
        if met < len(parts) and str(part) == parts[met]:
            met += 1
    return met


def outside(value: float, bound: float, *, highest: bool) -> bool:
    """Whether a value is beyond the highest (or the lowest) that is accepted."""
    return value > bound if highest else value < bound


def plain(value: Any) -> Any:
    """Recipe objects as they would be written, fields that were left out still left out."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
