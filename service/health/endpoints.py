"""`/healthz` and `/readyz`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from persistence import workers
from persistence.artifact_store import StoreUnavailable
from persistence.records import WorkerRecord
from service import examples
from service.context import Backend, BackendOf
from service.logs import logger
from service.problems import ProblemError
from service.problems.documentation import problems

router = APIRouter(tags=["health"])
_log = logger("secateur.health")


class Health(BaseModel):
    """The answer of a process that works."""

    status: str = "ok"


class WorkerSandbox(BaseModel):
    """What the runners of one living worker are contained by."""

    queues: list[str]
    level: str
    """`full`, `kernel` or `limits`; see docs/deployment.md."""
    contained: bool
    """Whether its self-test found files and network closed to runners."""


class Readiness(Health):
    """The answer of a service that can serve. Workers are shown and not asked for: jobs wait for
    them, requests do not."""

    workers: list[WorkerSandbox]


class NotReady(ProblemError):
    """The process lives but cannot serve."""

    status = 503
    type = "not-ready"
    title = "The service is not ready"


@router.get("/healthz", responses={200: examples.body(examples.HEALTH), **problems()})
async def healthz() -> Health:
    """Tell that the process answers; looks at nothing else."""
    return Health()


@router.get("/readyz", responses={200: examples.body(examples.READINESS), **problems(503)})
def readyz(backend: BackendOf) -> Readiness:
    """Tell whether requests can be served: the database and the artifact store answer. The workers
    that live are listed with what contains their runners."""
    _check_database(backend)
    _check_store(backend)
    with backend.database.session(read_only=True) as session:
        return Readiness(workers=[_sandbox(row) for row in workers.living(session)])


def _sandbox(row: WorkerRecord) -> WorkerSandbox:
    level, contained = str(row.sandbox.get("level")), row.sandbox.get("contained") is True
    return WorkerSandbox(queues=row.queues, level=level, contained=contained)


def _check_database(backend: Backend) -> None:
    try:
        with backend.database.session(read_only=True) as session:
            session.execute(text("SELECT version_num FROM alembic_version")).one()
    except SQLAlchemyError as error:
        # the reason may hold addresses; it belongs in the log
        _log.exception("the database is not ready")
        raise NotReady(
            "The database does not answer, or was never migrated.",
            hint="Check SECATEUR_DATABASE_URL and run `python -m migrations`.",
        ) from error


def _check_store(backend: Backend) -> None:
    try:
        backend.store.check()
    except StoreUnavailable as error:
        _log.exception("the artifact store is not ready")
        raise NotReady(
            f"The artifact store takes no files: {error.reason}.", hint=error.hint
        ) from error
