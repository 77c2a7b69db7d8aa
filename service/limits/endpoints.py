"""`/v1/limits`."""

from __future__ import annotations

from fastapi import APIRouter
from secateur.resources import Limits, Quota

from persistence import quotas
from service import examples, paging
from service.context import BackendOf, CallerOf
from service.problems.documentation import problems

router = APIRouter(prefix="/v1/limits", tags=["limits"])


@router.get("", responses={200: examples.body(examples.LIMITS), **problems(401)})
def get_limits(caller: CallerOf, backend: BackendOf) -> Limits:
    """Get the limits of this server, and the quotas of the tenant with what is used of them."""
    settings = backend.settings
    with backend.database.session(read_only=True) as session:
        found = {
            name: Quota(limit=limit, used=quotas.used(session, caller.tenant_id, name))
            for name, limit in quotas.allowed(session, caller.tenant_id, settings).items()
        }
    return Limits(
        max_model_bytes=settings.max_model_bytes,
        max_dataset_bytes=settings.max_dataset_bytes,
        max_archive_entries=settings.max_archive_entries,
        max_archive_ratio=settings.max_archive_ratio,
        max_unpacked_bytes=settings.max_unpacked_bytes,
        max_job_seconds=settings.max_job_seconds,
        max_attempts=settings.max_attempts,
        max_wait_seconds=settings.max_wait_seconds,
        page_size_default=paging.DEFAULT,
        page_size_max=paging.MAXIMUM,
        quotas=found,
    )
