"""API keys and the log of what was done with them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from secateur.resources.base import Resource

ApiKeyScope = Literal["read", "write", "admin"]


class ApiKeyCreate(BaseModel):
    """Body of `POST /v1/api-keys`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="", max_length=200)
    scopes: list[ApiKeyScope] | None = Field(default=None, min_length=1, max_length=3)
    """`read`, `write`, `admin` (keys, webhooks, audit log); none includes another. Those of the
    key that makes it when left out, and never more."""
    expires_at: AwareDatetime | None = None
    """When it stops to open anything; never when left out."""


class ApiKeyRotation(BaseModel):
    """Body of `POST /v1/api-keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    grace_seconds: int = Field(default=86_400, ge=0, le=30 * 86_400)
    """How long the old secret still opens."""


class ApiKey(Resource):
    """An API key; the secret itself is shown once, at creation."""

    id: str
    name: str
    prefix: str
    scopes: list[ApiKeyScope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by_id: str | None = None
    """The key that a rotation made in its place."""
    secret: str | None = None


class AuditEntry(Resource):
    """One change that a request made, or was refused."""

    id: int
    key_id: str | None = None
    action: str
    """The operation's id in the API description."""
    target: str
    """Id of what was changed."""
    status: int | None = None
    """The HTTP status of the answer; None where the process died before there was one."""
    request_id: str
    address: str
    """Where the request came from."""
    created_at: datetime
