"""Schemas of the parts of a recipe, cut out of the recipe types.

What the catalogue promises is therefore what validation accepts.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from pydantic import BaseModel

NO_TIME = "none of note: one pass over the weights"
"""The cost of what looks at weights only."""


def schema_of(
    model: type[BaseModel], fields: list[str] | None = None, **fixed: str
) -> dict[str, Any]:
    """Schema of a part of a recipe object.

    Args:
        model: the recipe type.
        fields: its fields to keep; all when None.
        fixed: fields pinned to one of the values their own schema allows.
    """
    schema = deepcopy(_whole(model))
    schema.pop("title", None)
    properties: dict[str, Any] = schema["properties"]
    if fields is not None:
        kept = [*fixed, *fields]
        properties = {name: properties[name] for name in kept}
        # A rule stands beside others in its object, so only what it pins is required.
        schema.pop("description", None)
        schema.pop("additionalProperties", None)
        schema["required"] = [name for name in schema.get("required", []) if name in kept]
    for name, value in fixed.items():
        allowed = [item for part in _parts(properties[name]) for item in _values(part)]
        if value not in allowed:
            raise ValueError(f"{model.__name__}.{name} does not accept {value!r}, only {allowed}")
        pinned = {
            k: v for k, v in properties[name].items() if k not in {"anyOf", "enum", "default"}
        }
        properties[name] = {**pinned, "const": value}
        if name not in schema.setdefault("required", []):
            schema["required"].append(name)
    schema["properties"] = properties
    if not schema.get("required"):
        schema.pop("required", None)
    definitions = schema.pop("$defs", {})
    needed = _referenced(properties, definitions)
    if needed:
        schema["$defs"] = {name: definitions[name] for name in sorted(needed)}
    return schema


@cache
def _whole(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _parts(field: dict[str, Any]) -> list[dict[str, Any]]:
    """A field that may be left out lists its type beside null."""
    parts: list[dict[str, Any]] = field.get("anyOf", [field])
    return parts


def _values(field: dict[str, Any]) -> list[Any]:
    values: list[Any] = field.get("enum", [field["const"]] if "const" in field else [])
    return values


def _referenced(node: Any, definitions: dict[str, Any]) -> set[str]:
    """Names of the definitions `node` refers to, through others too."""
    if isinstance(node, list):
        return {name for item in node for name in _referenced(item, definitions)}
    if not isinstance(node, dict):
        return set()
    found: set[str] = set()
    for key, value in node.items():
        if key == "$ref":
            name = str(value).removeprefix("#/$defs/")
            found |= {name} | _referenced(definitions[name], definitions)
        else:
            found |= _referenced(value, definitions)
    return found
