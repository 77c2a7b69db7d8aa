"""`/v1/audit-log`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from secateur.resources import AuditEntry, Page

from persistence import audit
from persistence.records import AuditRecord
from service import examples
from service.access.scopes import AdminRoute
from service.context import BackendOf, CallerOf
from service.paging import Limit, page_of
from service.problems.documentation import problems

router = APIRouter(prefix="/v1/audit-log", tags=["audit log"], route_class=AdminRoute)

_LARGEST = 2**63 - 1


@router.get("", responses={200: examples.page(examples.AUDIT_ENTRY), **problems(401, 422)})
def list_audit_log(
    *,
    caller: CallerOf,
    backend: BackendOf,
    limit: Limit = 50,
    cursor: Annotated[
        int | None, Query(ge=1, le=_LARGEST, description="`next_cursor` of the page before.")
    ] = None,
    action: Annotated[
        str | None, Query(max_length=80, description="An operation id, such as `delete_model`.")
    ] = None,
    target: Annotated[
        str | None, Query(max_length=80, description="Id of what was changed.")
    ] = None,
    key_id: Annotated[str | None, Query(max_length=40, description="The key that did it.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Not before this time.")] = None,
) -> Page[AuditEntry]:
    """List changes that requests made or were refused, newest first."""
    when: datetime | None = since
    filters = audit.Filters(action=action, target=target, key_id=key_id, since=when)
    with backend.database.session(read_only=True) as session:
        found = audit.list_page(session, caller.tenant_id, filters, limit=limit, cursor=cursor)
    return page_of(found, _shown)


def _shown(record: AuditRecord) -> AuditEntry:
    return AuditEntry(
        id=record.id,
        key_id=record.key_id,
        action=record.action,
        target=record.target,
        status=record.status or None,
        request_id=record.request_id,
        address=record.address,
        created_at=record.created_at,
    )
