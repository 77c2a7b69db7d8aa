"""From a pydantic error to a field the caller knows, and what would be valid there.

Pydantic's location of an error runs through its own structure: `body`, and the tags of unions
(`stages, 0, prune, allocation`). The caller wrote `recipe.stages.0.allocation`; tags are dropped
by walking the schema and the request together.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from secateur.resources import FieldProblem

_UNKNOWN_KEY = "extra_forbidden"
_PARTS_OF_A_REQUEST = ("body", "query", "path", "header")


def field_problem(
    error: Mapping[str, Any], body: Any, body_model: type[BaseModel] | None
) -> FieldProblem:
    """The field and the message of one pydantic error.

    Args:
        error: one entry of `ValidationError.errors()` as FastAPI extends it.
        body: the parsed request body, or None.
        body_model: the model the body was checked against, to tell what keys exist.
    """
    location = list(error["loc"])
    part = location.pop(0) if location and location[0] in _PARTS_OF_A_REQUEST else ""
    if part != "body":
        return FieldProblem(field=".".join(map(str, location)) or str(part), message=_text(error))
    path = _without_tags(location, body, missing=error["type"] == "missing")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append(str(error["ctx"]["discriminator"]).strip("'"))
    message = _text(error)
    if error["type"] == _UNKNOWN_KEY and body_model is not None:
        message = _unknown_key(str(location[-1]), location[:-1], body_model)
    return FieldProblem(field=".".join(path) or "body", message=message)


def _text(error: Mapping[str, Any]) -> str:
    context = error.get("ctx") or {}
    if error["type"] == "missing":
        return "This field is required."
    if error["type"] == "union_tag_invalid":
        return f"`{context['tag']}` is unknown; valid are {context['expected_tags']}."
    if error["type"] == "union_tag_not_found":
        return "This field is required: it selects what the other fields mean."
    if error["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return "Input should be an object with named fields."
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if message.endswith(".") else f"{message}."


def _without_tags(location: Sequence[Any], body: Any, *, missing: bool) -> list[str]:
    path: list[str] = []
    here = body
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(part, int):
            path.append(str(part))
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and part in here:
            path.append(str(part))
            here = here[part]
        elif last and missing:
            path.append(str(part))
    return path


def _unknown_key(key: str, location: Sequence[Any], model: type[BaseModel]) -> str:
    valid = _keys_at(location, model)
    if not valid:
        return f"`{key}` is not a field here."
    near = difflib.get_close_matches(key, valid, n=1)
    meant = f" Did you mean `{near[0]}`?" if near else ""
    return (
        f"`{key}` is not a field here; valid are {', '.join(f'`{name}`' for name in valid)}.{meant}"
    )


def _keys_at(location: Sequence[Any], model: type[BaseModel]) -> list[str]:
    """Names of the fields at a pydantic location; here the tags of unions lead the way."""
    whole = model.model_json_schema()
    definitions = whole.get("$defs", {})
    here = whole
    for part in location:
        here = _step(part, _resolve(here, definitions), definitions)
    return list(_resolve(here, definitions).get("properties", {}))


def _step(part: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if isinstance(part, int):
        items: dict[str, Any] = schema.get("items", {})
        return items
    if part in schema.get("properties", {}):
        found: dict[str, Any] = schema["properties"][part]
        return found
    mapping = schema.get("discriminator", {}).get("mapping", {})
    # Without a discriminator the tags are the names of the types.
    mapping = mapping or {one["$ref"].rsplit("/", 1)[-1]: one["$ref"] for one in _choices(schema)}
    if part in mapping:
        return {"$ref": mapping[part]}
    # Of choices within choices each is told by constants: its stage, then its scheme.
    told = [one for one in _choices(schema) if part in _constants(_resolve(one, definitions))]
    if told:
        return told[0] if len(told) == 1 else {"oneOf": told}
    entries = schema.get("additionalProperties")
    return entries if isinstance(entries, dict) else _resolve(schema, definitions)


def _constants(schema: dict[str, Any]) -> list[Any]:
    return [field.get("const") for field in schema.get("properties", {}).values()]


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in schema.get("oneOf", []) if "$ref" in one]


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "$ref" in schema:
            schema = definitions.get(schema["$ref"].rsplit("/", 1)[-1], {})
            continue
        choices = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
        if len(choices) != 1:
            return schema
        schema = choices[0]
