"""Uploads in parts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from secateur.resources.base import Problem, Resource

UploadKind = Literal["model", "dataset"]
UploadStatus = Literal["open", "completing", "completed", "refused", "aborted"]
MAX_PARTS = 10_000


class UploadCreate(BaseModel):
    """Body of `POST /v1/uploads`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: UploadKind
    """What the file becomes."""
    name: str = Field(default="", max_length=200)
    bytes: int | None = Field(default=None, ge=1)
    """Size of the whole file; checked when it is complete."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the whole file, in lower-case hexadecimal digits; checked when it is complete."""


class Upload(Resource):
    """A file that arrives in parts."""

    id: str
    kind: UploadKind
    name: str
    status: UploadStatus
    """`completing` while its parts are put together; `refused` when the file was no such model or
    dataset."""
    bytes: int | None
    """Size of the whole file, if it was announced."""
    sha256: str | None
    """Of the whole file, if it was announced."""
    received_bytes: int
    received_parts: int
    part_bytes: int
    """A good size of parts; any other will do."""
    max_part_bytes: int
    max_parts: int
    resource_id: str | None = None
    """The model or dataset it became."""
    error: Problem | None = None
    """Why it was refused."""
    created_at: datetime
    expires_at: datetime
    """When an open upload is given up, counted from its last part; when one that ended is
    forgotten."""


class UploadPart(Resource):
    """A part that has arrived."""

    number: int
    """From 1; the file is its parts in this order."""
    sha256: str
    bytes: int


class PartReference(BaseModel):
    """A part as the client knows it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    number: int = Field(ge=1, le=MAX_PARTS)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class UploadComplete(BaseModel):
    """Body of `POST /v1/uploads/{id}/complete`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    parts: list[PartReference] | None = Field(default=None, max_length=MAX_PARTS)
    """All parts, compared with those that arrived; left out, the file is what arrived."""
