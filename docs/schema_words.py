"""JSON schemas in words, for the tables of the generated pages."""

from __future__ import annotations

from typing import Any

_BOUNDS = (
    ("exclusiveMinimum", "above"),
    ("minimum", "from"),
    ("exclusiveMaximum", "below"),
    ("maximum", "to"),
)

_GROUPS = {"array": "list", "object": "mapping"}


def values(schema: dict[str, Any]) -> str:
    """The accepted values of one field."""
    if "$ref" in schema:
        return f"[{reference(schema)}](#{reference(schema).lower()})"
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(values(option) for option in alternatives)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    named = next(iter(schema.get("patternProperties", {}).values()), None)
    parts = schema.get("items") or named or schema.get("additionalProperties")
    if parts:
        return f"{_GROUPS[schema['type']]} of {values(parts)}"
    bounds = [f"{sign} {schema[key]}" for key, sign in _BOUNDS if key in schema]
    return " ".join([str(schema["type"]), *bounds])


def reference(schema: dict[str, Any]) -> str:
    """Name of the type a schema refers to."""
    return str(schema["$ref"]).removeprefix("#/$defs/")


def default(field: dict[str, Any]) -> str:
    """The default of one field; empty where there is none."""
    if "default" not in field:
        return ""
    value = field["default"]
    if isinstance(value, dict):
        return "its own defaults" if "kind" not in value else f"`kind: {value['kind']}`"
    if isinstance(value, list):
        return f"`[{', '.join(str(item) for item in value)}]`"
    return f"`{'null' if value is None else str(value).lower()}`"
