"""Webhooks and their deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from secateur.resources.base import Problem, Resource
from secateur.resources.jobs import Job
from secateur.resources.stored import Model
from secateur.resources.uploads import Upload

WebhookEventType = Literal[
    "job.succeeded", "job.failed", "job.canceled", "job.expired", "model.ready", "model.rejected"
]


class WebhookCreate(BaseModel):
    """Body of `POST /v1/webhooks`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: str = Field(max_length=2000)
    """`https://...`; where messages are sent by POST."""
    event_types: list[WebhookEventType] = Field(default=[], max_length=32)
    """What to tell; everything when left empty."""
    description: str = Field(default="", max_length=200)


class WebhookUpdate(BaseModel):
    """Body of `PATCH /v1/webhooks/{id}`; what is left out stays."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: str | None = Field(default=None, max_length=2000)
    event_types: list[WebhookEventType] | None = Field(default=None, max_length=32)
    description: str | None = Field(default=None, max_length=200)
    enabled: bool | None = None
    """Switching it on again also forgets since when it failed."""


class WebhookRotation(BaseModel):
    """Body of `POST /v1/webhooks/{id}/rotate-secret`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    grace_seconds: int = Field(default=86_400, ge=0, le=30 * 86_400)
    """How long messages are signed by the old secret as well."""


class Webhook(Resource):
    """Where the server tells what."""

    id: str
    url: str
    description: str
    event_types: list[WebhookEventType]
    enabled: bool
    """False when it was switched off, by its owner or because it took nothing for five days or
    answered 410."""
    failing_since: datetime | None
    """Of the first failure since the last success."""
    previous_secret_expires_at: datetime | None
    created_at: datetime
    secret: str | None = None
    """`whsec_...`; shown at creation and rotation only."""


class DeliveryAttempt(Resource):
    """One attempt to deliver a message."""

    number: int
    status_code: int | None
    """Of the answer; null when there was none."""
    error: str
    """Empty when the message was taken."""
    response: str
    """The beginning of the answer."""
    elapsed_ms: int
    created_at: datetime


class Delivery(Resource):
    """A message for a webhook. `id` is its `webhook-id`, the same at every attempt."""

    id: str
    webhook_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed"]
    payload: dict[str, Any]
    attempts: list[DeliveryAttempt]
    next_attempt_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None


for _resource in (Problem, Model, Upload, Job):
    _resource.model_rebuild()
