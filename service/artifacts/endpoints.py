"""`/v1/artifacts`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from secateur.resources import Artifact

from persistence import job_output
from persistence.records import ArtifactRecord
from service import examples
from service.content import content_responses, send_blob
from service.context import Backend, BackendOf, CallerOf
from service.problems import NotFound
from service.problems.documentation import problems

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])


@router.get(
    "/{artifact_id}",
    responses={200: examples.body(examples.ARTIFACT), **problems(401, 404)},
)
def get_artifact(artifact_id: str, caller: CallerOf, backend: BackendOf) -> Artifact:
    """Get one artifact's description."""
    return Artifact.model_validate(_find(backend, caller.tenant_id, artifact_id))


@router.get(
    "/{artifact_id}/content",
    response_class=Response,
    responses={
        **content_responses("*/*", "The file, with its own media type."),
        **problems(401, 404, 416, 503),
    },
)
def download_artifact(
    artifact_id: str, request: Request, caller: CallerOf, backend: BackendOf
) -> Response:
    """Download an artifact, whole or in part (`Range`)."""
    record = _find(backend, caller.tenant_id, artifact_id)
    return send_blob(
        request,
        backend.store,
        record.sha256,
        media_type=record.media_type,
        filename=record.name,
    )


def _find(backend: Backend, tenant_id: str, artifact_id: str) -> ArtifactRecord:
    with backend.database.session(read_only=True) as session:
        record = job_output.artifact(session, tenant_id, artifact_id)
    if record is None:
        raise NotFound("artifact", artifact_id, listing="/v1/jobs/{id}/artifacts")
    return record
