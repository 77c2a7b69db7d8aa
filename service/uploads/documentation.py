"""How uploads are written into the API description."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

FileName = Annotated[str | None, Query(max_length=200, description="A name for people; any text.")]


def upload_body(description: str) -> dict[str, Any]:
    """The request body of an upload, which the framework cannot see: it is read as a stream."""
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {"file": file, "name": {"type": "string", "maxLength": 200}},
        "required": ["file"],
    }
    return {
        "requestBody": {
            "description": description,
            "required": True,
            "content": {
                "application/octet-stream": {"schema": file},
                "multipart/form-data": {"schema": form},
            },
        },
        "parameters": digest_parameters("the file"),
    }


def digest_parameters(what: str) -> list[dict[str, Any]]:
    """The headers that announce a SHA-256."""
    return [
        _digest("Content-Digest", what, "RFC 9530: `sha-256=:<base64>:`."),
        _digest("Repr-Digest", what, "The same of RFC 9530."),
        _digest("X-Content-SHA256", what, "64 hexadecimal digits."),
    ]


def _digest(name: str, what: str, form: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": f"SHA-256 of {what}, checked on arrival. {form}",
        "schema": {"type": "string"},
    }
