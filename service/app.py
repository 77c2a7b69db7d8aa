"""The application: `uvicorn --factory service.app:create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI

from persistence.artifact_store import open_store
from persistence.database import Database
from persistence.settings import Settings
from service import logs
from service.access.audit_trail import AuditTrail
from service.access.authentication import Authentication
from service.access.key_cache import KeyCache
from service.access.rate_limits import RateLimits
from service.access.scopes import permit
from service.api_keys.endpoints import router as api_keys
from service.artifacts.endpoints import router as artifacts
from service.audit_log.endpoints import router as audit_log
from service.conditional import ConditionalGet
from service.context import Backend
from service.datasets.endpoints import router as datasets
from service.head import HeadAsGet
from service.health.endpoints import router as health
from service.jobs.change_feed import ChangeFeed
from service.jobs.endpoints import router as jobs
from service.jobs.poll_route import PollRoute
from service.jobs.reading import read_jobs, read_marks
from service.limits.endpoints import router as limits
from service.methods.endpoints import router as methods
from service.models.endpoints import router as models
from service.openapi import describe
from service.problems import handlers
from service.request_guard import RequestGuard
from service.resumable_uploads.endpoints import router as uploads
from service.shared_reads import SharedReads
from service.webhooks.endpoints import router as webhooks

ROUTERS = (
    models, datasets, uploads, jobs, artifacts, methods, limits, api_keys, webhooks,
    audit_log, health,
)  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application of one process.

    Args:
        settings: read from the environment when left out.
    """
    logs.configure()
    settings = settings or Settings()
    database = Database(settings.resolved_database_url)
    backend = Backend(
        settings=settings,
        database=database,
        store=open_store(settings),
        changes=ChangeFeed(database),
        keys=KeyCache(settings.key_cache_seconds),
        job_reads=SharedReads(partial(read_jobs, database)),
        mark_reads=SharedReads(partial(read_marks, database)),
        rates=RateLimits(settings),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        backend.changes.start()
        try:
            yield
        finally:
            await backend.changes.stop()
            database.dispose()

    app = FastAPI(
        title="Secateur",
        lifespan=lifespan,
        dependencies=[Depends(permit)],
        redirect_slashes=False,
        # short, stable operation ids, which generated clients turn into method names
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.backend = backend
    app.add_middleware(ConditionalGet)
    app.add_middleware(HeadAsGet)
    app.add_middleware(AuditTrail, backend=backend)
    app.add_middleware(Authentication, backend=backend)
    app.add_middleware(RequestGuard, settings=settings)
    handlers.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes.insert(0, PollRoute(backend))
    describe(app)
    return app
