"""`/v1/api-keys`."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from secateur.resources import ApiKey, Page

from persistence import api_keys
from service import examples
from service.context import BackendOf, CallerOf
from service.paging import ApiKeyCursor, Limit, page_of
from service.problems import NotFound
from service.problems.documentation import problems
from service.problems.nul import refuse_nul

router = APIRouter(prefix="/v1/api-keys", tags=["api keys"])


class ApiKeyCreate(BaseModel):
    """Body of `POST /v1/api-keys`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="", max_length=200)


@router.post(
    "",
    status_code=201,
    responses={
        201: examples.created(
            "The key; `secret` is shown this once.",
            {**examples.API_KEY, "secret": "sk_Zx81QabV..."},
        ),
        **problems(400, 401, 413, 415, 422),
    },
)
def create_api_key(
    request: ApiKeyCreate, response: Response, caller: CallerOf, backend: BackendOf
) -> ApiKey:
    """Create an API key for the same tenant. Its secret cannot be read again."""
    refuse_nul(request)
    with backend.database.session() as session:
        record, secret = api_keys.create(session, tenant_id=caller.tenant_id, name=request.name)
        created = ApiKey.model_validate(record).model_copy(update={"secret": secret})
    response.headers["Location"] = f"/v1/api-keys/{created.id}"
    response.headers["Cache-Control"] = "no-store"
    return created


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
    with backend.database.session(read_only=True) as session:
        record = api_keys.get(session, caller.tenant_id, key_id)
    if record is None:
        raise NotFound("API key", key_id, listing="/v1/api-keys")
    return ApiKey.model_validate(record)


@router.delete(
    "/{key_id}",
    status_code=204,
    responses={204: {"description": "The key opens nothing any more."}, **problems(401, 404)},
)
def revoke_api_key(key_id: str, caller: CallerOf, backend: BackendOf) -> None:
    """Revoke an API key, at once."""
    with backend.database.session() as session:
        record = api_keys.get(session, caller.tenant_id, key_id)
        if record is None:
            raise NotFound("API key", key_id, listing="/v1/api-keys")
        api_keys.revoke(record)
