"""Read a recipe from a YAML or JSON file, with the line of every mistake.

The same types validate it here and on the server; here they are checked before anything is
uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from secateur.errors import SecateurError
from secateur.recipe import Recipe
from secateur.recipe_exports import format_of

LARGEST = 1 << 20


@dataclass(frozen=True)
class Mistake:
    """One wrong field: its dotted path, its line (from 1) and what would be valid."""

    field: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field or 'recipe'}: {self.message}"


class RecipeInvalid(SecateurError):
    """The recipe file cannot be used."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        super().__init__(
            f"{path} is not a valid recipe", hint="`secateur methods` lists what a recipe may say"
        )
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join([self.title, *(str(mistake) for mistake in self.mistakes)])


@dataclass(frozen=True)
class RecipeFile:
    """A valid recipe and the text it was read from."""

    path: Path
    recipe: Recipe
    text: str
    root: yaml.Node
    """The parsed text, with positions."""

    def with_exports(self, formats: Sequence[str]) -> RecipeFile:
        """The same, with these formats of the result as well.

        Raises:
            SecateurError: there is no such format.
        """
        there = {format_of(export) for export in self.recipe.exports}
        added = [name for name in dict.fromkeys(formats) if name not in there]
        if not added:
            return self
        whole = self.recipe.as_written | {"exports": [*self.recipe.exports, *added]}
        try:
            return replace(self, recipe=Recipe.model_validate(whole))
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise SecateurError(f"--export: {message}", hint="see `secateur methods`") from error

    def mistakes(self, messages: Mapping[str, str]) -> RecipeInvalid:
        """The error for mistakes found later, given by dotted field path."""
        found = []
        for field, message in messages.items():
            parts = list(_steps(self.root, field.split(".")))
            found.append(Mistake(field, _locate(self.root, parts)[1], message))
        return RecipeInvalid(self.path, found)


def read_recipe(path: Path) -> RecipeFile:
    """The recipe in a file.

    Raises:
        RecipeInvalid: with every mistake found.
        SecateurError: the file cannot be read.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise SecateurError(f"{path} is too large for a recipe", hint="check the path")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SecateurError(f"cannot read {path}: {reason}", hint="check the path") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark is not None else 1
        raise RecipeInvalid(path, [Mistake("", line, f"not YAML: {problem}")]) from error
    if not isinstance(root, yaml.MappingNode):
        raise RecipeInvalid(
            path, [Mistake("", 1, "a recipe is a mapping: `version: 1`, `stages:`")]
        )
    twice = list(_repeated_keys(root, ""))
    if twice:
        raise RecipeInvalid(path, twice)
    try:
        return RecipeFile(path, Recipe.model_validate(content), text, root)
    except ValidationError as error:
        mistakes = [
            Mistake(*_locate(root, fault["loc"]), fault["msg"].removeprefix("Value error, "))
            for fault in error.errors()
        ]
        raise RecipeInvalid(path, mistakes) from error


def _steps(node: yaml.Node, parts: Sequence[str]) -> Iterator[int | str]:
    """The steps of a dotted path; keys may have dots themselves, as paths of a search do."""
    while parts:
        taken, below = 1, node
        if isinstance(node, yaml.MappingNode):
            keys = {str(key.value): value for key, value in node.value}
            lengths = range(len(parts), 0, -1)
            taken = next((n for n in lengths if ".".join(parts[:n]) in keys), 1)
            below = keys.get(".".join(parts[:taken]), node)
        elif isinstance(node, yaml.SequenceNode) and parts[0].isdigit():
            below = node.value[int(parts[0])] if int(parts[0]) < len(node.value) else node
        step = ".".join(parts[:taken])
        yield int(step) if isinstance(node, yaml.SequenceNode) and step.isdigit() else step
        node, parts = below, parts[taken:]


def _locate(node: yaml.Node, location: Sequence[int | str]) -> tuple[str, int]:
    """Path and line of pydantic's error location, which also names the variants of unions."""
    path: list[str] = []
    line = node.start_mark.line
    for position, part in enumerate(location):
        found: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = node.value[part] if part < len(node.value) else None
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    found, line = value, key.start_mark.line
        if found is not None:
            path.append(str(part))
            if isinstance(node, yaml.SequenceNode):
                line = found.start_mark.line
            node = found
        elif position == len(location) - 1 and isinstance(node, yaml.MappingNode):
            path.append(str(part))  # a missing field
    return ".".join(path), line + 1


def _repeated_keys(node: yaml.Node, path: str) -> Iterator[Mistake]:
    """YAML keeps the last of two equal keys in silence; a recipe must not."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            field = f"{path}.{key.value}".lstrip(".")
            if key.value in seen:
                yield Mistake(field, key.start_mark.line + 1, "is given twice")
            seen.add(key.value)
            yield from _repeated_keys(value, field)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _repeated_keys(value, f"{path}.{index}".lstrip("."))
