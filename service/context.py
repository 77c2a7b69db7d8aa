"""What a request has at hand: the backend of this process and who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from persistence import api_keys
from persistence.artifact_store import ArtifactStore
from persistence.database import Database
from persistence.settings import Settings
from service.jobs.change_feed import ChangeFeed
from service.problems import Unauthorized

_bearer = HTTPBearer(
    auto_error=False, scheme_name="ApiKey", description="An API key: `Bearer sk_...`."
)


@dataclass(frozen=True)
class Backend:
    """Settings, database, artifact store and change feed of one application."""

    settings: Settings
    database: Database
    store: ArtifactStore
    changes: ChangeFeed


@dataclass(frozen=True)
class Caller:
    """The tenant an API key belongs to."""

    tenant_id: str
    key_id: str


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


BackendOf = Annotated[Backend, Depends(_backend)]


def _authenticate(
    request: Request,
    backend: BackendOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None:
        raise Unauthorized("The request carries no API key.")
    with backend.database.session(read_only=True) as session:
        key = api_keys.verify(session, credentials.credentials)
    if key is None:
        raise Unauthorized("This API key is unknown or revoked.", error="invalid_token")
    request.state.key_id = key.id  # for the log line; this runs in a thread of its own context
    return Caller(tenant_id=key.tenant_id, key_id=key.id)


CallerOf = Annotated[Caller, Depends(_authenticate)]
