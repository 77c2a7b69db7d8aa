"""API keys: made with no more scopes than their maker has, rotated with a grace time, revoked."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from secateur.resources import ApiKey, ApiKeyCreate, FieldProblem
from sqlalchemy.orm import Session

from persistence import api_keys, quotas
from persistence.records import ApiKeyRecord, utc_now
from persistence.settings import Settings
from service.access.problems import ScopeMissing
from service.access.quotas import claim
from service.context import Backend, Caller
from service.problems import NotFound, ProblemError, RequestInvalid


class KeyIsOver(ProblemError):
    """The key opens nothing any more, or another took its place."""

    status = 409
    type = "api-key-over"
    title = "The API key cannot be rotated"


class LastAdminKey(ProblemError):
    """Nobody could manage the tenant's keys afterwards."""

    status = 409
    type = "last-admin-key"
    title = "This is the last key with the scope `admin`"

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"Without `{key_id}` no key of this tenant could make or revoke others.",
            hint="Make another key with the scope `admin` first, or say `?force=true`; then only "
            "`deploy/create_key.py`, run beside the database, makes a new one.",
        )


def create(session: Session, settings: Settings, caller: Caller, request: ApiKeyCreate) -> ApiKey:
    """A key of the caller's tenant.

    Raises:
        RequestInvalid: it would have expired already.
        ScopeMissing: it would have a scope that the caller's key lacks.
    """
    if request.expires_at is not None and request.expires_at <= utc_now():
        fault = "The time has passed already; name one to come, or leave it out."
        raise RequestInvalid([FieldProblem(field="expires_at", message=fault)])
    scopes = caller.scopes if request.scopes is None else request.scopes
    _within(caller, scopes)
    claim(session, settings, caller.tenant_id, quotas.API_KEYS)
    record, secret = api_keys.create(
        session,
        tenant_id=caller.tenant_id,
        name=request.name,
        scopes=list(scopes),
        expires_at=request.expires_at,
    )
    return _shown(record, secret)


def rotate(session: Session, caller: Caller, key_id: str, grace_seconds: int) -> ApiKey:
    """A key in place of this one, which goes on for the grace time. Afterwards the process's
    memory of keys must forget the old one.

    Raises:
        KeyIsOver: it was revoked, has expired or was rotated before.
        ScopeMissing: it has a scope that the caller's key lacks.
    """
    api_keys.lock(session, caller.tenant_id)
    record = _found(session, caller.tenant_id, key_id)
    _within(caller, record.scopes)
    if record.replaced_by_id is not None:
        raise KeyIsOver(
            f"`{key_id}` was rotated already; `{record.replaced_by_id}` is in its place.",
            hint=f"Rotate `{record.replaced_by_id}`, for example if its secret got lost.",
        )
    if not api_keys.is_active(record, utc_now()):
        raise KeyIsOver(f"`{key_id}` was revoked or has expired.", hint="Make a new key instead.")
    made, secret = api_keys.rotate(session, record, grace=timedelta(seconds=grace_seconds))
    return _shown(made, secret)


def revoke(backend: Backend, tenant_id: str, key_id: str, *, force: bool) -> None:
    """Close a key.

    Raises:
        LastAdminKey: no other key could manage the tenant's keys; `force` does it all the same.
    """
    with backend.database.session() as session:
        api_keys.lock(session, tenant_id)
        record = _found(session, tenant_id, key_id)
        if not force and api_keys.is_last_admin(session, record):
            raise LastAdminKey(key_id)
        api_keys.revoke(record)
    backend.keys.forget(key_id)


def get(backend: Backend, tenant_id: str, key_id: str) -> ApiKey:
    """One key."""
    with backend.database.session(read_only=True) as session:
        return ApiKey.model_validate(_found(session, tenant_id, key_id))


def _found(session: Session, tenant_id: str, key_id: str) -> ApiKeyRecord:
    record = api_keys.get(session, tenant_id, key_id)
    if record is None:
        raise NotFound("API key", key_id, listing="/v1/api-keys")
    return record


def _within(caller: Caller, scopes: Collection[str]) -> None:
    for scope in scopes:
        if scope not in caller.scopes:
            raise ScopeMissing(scope, caller.scopes)


def _shown(record: ApiKeyRecord, secret: str) -> ApiKey:
    return ApiKey.model_validate(record).model_copy(update={"secret": secret})
