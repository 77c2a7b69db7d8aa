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
        "parameters": [
            _digest("Content-Digest", "RFC 9530: `sha-256=:<base64>:`."),
            _digest("X-Content-SHA256", "64 hexadecimal digits."),
        ],
    }


def _digest(name: str, form: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": f"SHA-256 of the file, checked on arrival. {form}",
        "schema": {"type": "string"},
    }
