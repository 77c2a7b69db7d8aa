"""What a tenant has, and how much of it it may have.

A quota is a number in the settings or, for one tenant, in `tenants.quotas`; without one there is
no bound and nothing is counted. Whoever makes something counted holds the tenant's row until the
transaction ends, so of two requests at once the second sees what the first made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from persistence.records import (
    LIVE,
    ApiKeyRecord,
    ArtifactRecord,
    DatasetRecord,
    JobRecord,
    ModelRecord,
    TenantRecord,
    UploadPartRecord,
    UploadRecord,
    WebhookRecord,
    utc_now,
)
from persistence.settings import Settings

STORED_BYTES = "stored_bytes"
MODELS = "models"
DATASETS = "datasets"
LIVE_JOBS = "live_jobs"
API_KEYS = "api_keys"
WEBHOOKS = "webhooks"


def allowed(session: Session, tenant_id: str, settings: Settings) -> dict[str, int | None]:
    """Every quota of the tenant by name; None where there is no bound."""
    own = session.scalar(select(TenantRecord.quotas).where(TenantRecord.id == tenant_id)) or {}
    return {name: own.get(name, getattr(settings, f"quota_{name}")) for name in USED}


def hold(session: Session, tenant_id: str) -> None:
    """Let nobody else count for this tenant until the transaction ends."""
    session.execute(
        select(TenantRecord.id)
        .where(TenantRecord.id == tenant_id)
        # not against foreign keys: everything a tenant gets names it
        .with_for_update(key_share=True)
    )


def set_own(session: Session, tenant_id: str, quotas: Mapping[str, int | None]) -> None:
    """Give a tenant quotas of its own; a name with None follows the settings again."""
    tenant = session.get_one(TenantRecord, tenant_id)
    kept = {**(tenant.quotas or {}), **quotas}
    tenant.quotas = {name: value for name, value in kept.items() if value is not None} or None


def used(session: Session, tenant_id: str, name: str) -> int:
    """How much of it the tenant has now."""
    session.flush()
    return USED[name](session, tenant_id)


def _stored_bytes(session: Session, tenant_id: str) -> int:
    """Of models, datasets, results of jobs, and parts of uploads; equal bytes of one tenant count
    as often as it names them."""
    parts = (
        select(func.sum(UploadPartRecord.bytes))
        .join(UploadRecord, UploadRecord.id == UploadPartRecord.upload_id)
        .where(UploadRecord.tenant_id == tenant_id)
    )
    sums: list[Select[int]] = [
        _bytes(ModelRecord.bytes, ModelRecord.tenant_id == tenant_id, _kept(ModelRecord)),
        _bytes(DatasetRecord.bytes, DatasetRecord.tenant_id == tenant_id, _kept(DatasetRecord)),
        _bytes(ArtifactRecord.bytes, ArtifactRecord.tenant_id == tenant_id),
        parts,
    ]
    return sum(int(session.scalar(one) or 0) for one in sums)


def _bytes(column: InstrumentedAttribute[int], *conditions: ColumnElement[bool]) -> Select[int]:
    return select(func.sum(column)).where(*conditions)


def _kept(record: type[ModelRecord | DatasetRecord | WebhookRecord]) -> ColumnElement[bool]:
    return record.deleted_at.is_(None)


def _counter(*conditions: Callable[[str], ColumnElement[bool]]) -> Callable[[Session, str], int]:
    def count(session: Session, tenant_id: str) -> int:
        wanted = [condition(tenant_id) for condition in conditions]
        return session.scalar(select(func.count()).where(*wanted)) or 0

    return count


USED: dict[str, Callable[[Session, str], int]] = {
    STORED_BYTES: _stored_bytes,
    MODELS: _counter(lambda t: ModelRecord.tenant_id == t, lambda _: _kept(ModelRecord)),
    DATASETS: _counter(lambda t: DatasetRecord.tenant_id == t, lambda _: _kept(DatasetRecord)),
    LIVE_JOBS: _counter(lambda t: JobRecord.tenant_id == t, lambda _: JobRecord.status.in_(LIVE)),
    API_KEYS: _counter(
        lambda t: ApiKeyRecord.tenant_id == t,
        lambda _: ApiKeyRecord.revoked_at.is_(None),
        lambda _: ApiKeyRecord.expires_at.is_(None) | (ApiKeyRecord.expires_at > utc_now()),
    ),
    WEBHOOKS: _counter(lambda t: WebhookRecord.tenant_id == t, lambda _: _kept(WebhookRecord)),
}
"""By name: how much of it a tenant has."""
