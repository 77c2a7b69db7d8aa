"""What the service offers and allows: methods, limits, quotas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from secateur.resources.base import Resource


class Method(Resource):
    """One name a recipe may use."""

    name: str
    kind: Literal[
        "granularity",
        "criterion",
        "tournament",
        "allocation",
        "schedule",
        "training",
        "quantization",
        "baseline",
        "scan",
        "sampler",
        "loss",
        "metric",
        "export",
    ]
    summary: str
    formula: str
    source: str
    data: Literal["none", "inputs", "labelled", "training"]
    cost: str
    schema_: dict[str, Any] = Field(alias="schema", serialization_alias="schema")


class Quota(Resource):
    """How much of something a tenant may have."""

    limit: int | None
    """Null where there is no bound."""
    used: int


class Limits(Resource):
    """Limits of this server."""

    max_model_bytes: int
    max_dataset_bytes: int
    max_archive_entries: int
    max_archive_ratio: float
    max_unpacked_bytes: int
    max_job_seconds: int
    max_attempts: int
    max_wait_seconds: int
    page_size_default: int
    page_size_max: int
    quotas: dict[str, Quota] = {}  # noqa: RUF012 - pydantic copies it
    """Of the tenant: `stored_bytes`, `models`, `datasets`, `live_jobs`, `api_keys`, `webhooks`."""
