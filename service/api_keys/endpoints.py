"""`/v1/api-keys`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from secateur.resources import ApiKey, ApiKeyCreate, ApiKeyRotation, Page

from persistence import api_keys
from service import examples
from service.access.scopes import AdminRoute
from service.api_keys import service
from service.context import BackendOf, CallerOf
from service.idempotency import OnceOf
from service.paging import ApiKeyCursor, Limit, page_of
from service.problems.documentation import problems
from service.problems.nul import refuse_nul

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"], route_class=AdminRoute)

_NEW_SECRET = {**examples.API_KEY, "secret": "sk_06av9c5q1w2e3r4t5y6u7p8a9s_Zx81QabV..."}


@router.post(
    "",
    status_code=201,
    responses={
        201: examples.created("The key; `secret` is shown this once.", _NEW_SECRET),
        **problems(400, 401, 409, 413, 415, 422),
    },
)
def create_api_key(
    request: ApiKeyCreate,
    response: Response,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
) -> ApiKey:
    """Create an API key for the same tenant. Its secret cannot be read again."""
    refuse_nul(request)
    response.headers["Cache-Control"] = "no-store"
    return once.create_with_secret(
        ApiKey,
        request,
        lambda session: service.create(session, backend.settings, caller, request),
        collection="/v1/api-keys",
    )


@router.get("", responses={200: examples.page(examples.API_KEY), **problems(401, 422)})
def list_api_keys(
    caller: CallerOf, backend: BackendOf, limit: Limit = 50, cursor: ApiKeyCursor = None
) -> Page[ApiKey]:
    """List API keys, newest first, revoked ones included; never their secrets."""
    with backend.database.session(read_only=True) as session:
        found = api_keys.list_page(session, caller.tenant_id, limit=limit, cursor=cursor)
    return page_of(found, ApiKey.model_validate)


@router.get("/{key_id}", responses={200: examples.body(examples.API_KEY), **problems(401, 404)})
def get_api_key(key_id: str, caller: CallerOf, backend: BackendOf) -> ApiKey:
    """Get one API key."""
    return service.get(backend, caller.tenant_id, key_id)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    responses={
        201: examples.created("The key in its place; `secret` is shown this once.", _NEW_SECRET),
        **problems(400, 401, 404, 409, 413, 415, 422),
    },
)
def rotate_api_key(
    *,
    key_id: str,
    request: ApiKeyRotation,
    response: Response,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
) -> ApiKey:
    """Make a key in place of this one: same name, scopes and length of life, another secret. The
    old secret opens for `grace_seconds` more."""
    response.headers["Cache-Control"] = "no-store"
    made = once.create_with_secret(
        ApiKey,
        request,
        lambda session: service.rotate(session, caller, key_id, request.grace_seconds),
        collection="/v1/api-keys",
    )
    backend.keys.forget(key_id)
    return made


@router.delete(
    "/{key_id}",
    status_code=204,
    responses={204: {"description": "The key opens nothing any more."}, **problems(401, 404, 409)},
)
def revoke_api_key(
    key_id: str,
    caller: CallerOf,
    backend: BackendOf,
    force: Annotated[
        bool, Query(description="Even if it is the last key with the scope `admin`.")
    ] = False,
) -> None:
    """Revoke an API key. It opens nothing at once in this process, and in others of the server
    after two seconds (`SECATEUR_KEY_CACHE_SECONDS`)."""
    service.revoke(backend, caller.tenant_id, key_id, force=force)
