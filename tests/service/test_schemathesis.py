"""Requests made up from `openapi.yaml`, right and wrong ones, against a real server: no answer is a
server error, and every answer is one that the description knows.

`make fuzz-api` makes up twenty-five times as many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

import migrations
from persistence import job_queue
from persistence.database import Database
from service import examples
from tests.service.conftest import TinyNet, dataset_arrays, save, scripted
from tests.service.live_server import LiveServer, live_server

DESCRIPTION = Path(__file__).parents[2] / "openapi.yaml"
EXAMPLES = int(os.environ.get("SECATEUR_API_EXAMPLES", "2"))
"""Requests of each kind for each operation."""
LOADED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


def _described() -> Any:
    config = SchemathesisConfig.from_dict({"generation": {"allow-x00": True}})
    return schemathesis.openapi.from_path(DESCRIPTION, config=config)


OPERATIONS = [result.ok() for result in _described().get_all_operations()]


@dataclass(frozen=True)
class Seeded:
    """A server with something under every kind of id."""

    server: LiveServer
    client: httpx.Client
    job_id: str
    """Of one that has ended with a report."""

    def ids(self) -> dict[str, str]:
        """Fresh objects, by the names of path parameters; those of uploads are shared."""
        made = {
            "webhook_id": self._made("/v1/webhooks", {"url": "https://ci.example.com/"}),
            "key_id": self._made("/v1/api-keys", {"name": "seed", "scopes": ["read"]}),
            "upload_id": self._made("/v1/uploads", {"kind": "dataset"}),
            # made again where a request deleted it
            "model_id": self._sent("/v1/models", scripted(TinyNet())),
            "dataset_id": self._sent("/v1/datasets", save(dataset_arrays())),
            "job_id": self.job_id,
        }
        sent = self.client.post(f"/v1/webhooks/{made['webhook_id']}/test").json()
        [artifact] = self.client.get(f"/v1/jobs/{self.job_id}/artifacts").json()["data"]
        return {**made, "delivery_id": sent["id"], "artifact_id": artifact["id"], "number": "1"}

    def _made(self, path: str, body: dict[str, Any]) -> str:
        return str(self.client.post(path, json=body).raise_for_status().json()["id"])

    def _sent(self, path: str, content: bytes) -> str:
        return str(self.client.post(path, content=content).raise_for_status().json()["id"])


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    folder = tmp_path_factory.mktemp("described")
    url = f"sqlite:///{folder / 'secateur.db'}"
    migrations.upgrade(url)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SECATEUR_RATE_LIMIT_PER_MINUTE", "0")
        patched.setenv("SECATEUR_MAX_WAIT_SECONDS", "1")
        with (
            live_server(folder) as server,
            httpx.Client(base_url=server.url, headers=server.headers, timeout=30) as client,
        ):
            database = Database(url)
            client.post("/v1/models", content=scripted(TinyNet())).raise_for_status()
            client.post("/v1/datasets", content=save(dataset_arrays())).raise_for_status()
            job_id = _end_the_inspection(database, server)
            yield Seeded(server, client, job_id)
            database.dispose()


def _end_the_inspection(database: Database, server: LiveServer) -> str:
    """With a report, so that the paths of results have something to show."""
    from persistence.artifact_store import LocalArtifactStore  # noqa: PLC0415

    with LocalArtifactStore(server.artifacts).open_writer() as writer:
        writer.write(b"<!doctype html>")
        blob = writer.commit()
    with database.session() as session:
        held = job_queue.claim_next(session, "cpu", "tests", 60)
        assert held is not None
        job_queue.add_artifact(
            session, held, kind="report_html", name="report.html", media_type="text/html", blob=blob
        )
        job_queue.finish(session, held, "succeeded", result=examples.MODEL["info"])
        return held.job_id


@pytest.mark.parametrize("known", [True, False], ids=["known ids", "any ids"])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.label)
def test_every_answer_is_described(
    operation: Any, mode: GenerationMode, known: bool, seeded: Seeded
) -> None:
    if known and "{" not in operation.path:
        return  # covered by the other half
    checks = CHECKS.get_by_names(LOADED)
    ids = seeded.ids() if known else {}

    @hypothesis_settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        if known:
            case.path_parameters = {name: ids[name] for name in case.path_parameters or {}}
        response = case.call(
            base_url=seeded.server.url, headers=dict(seeded.server.headers), timeout=30
        )
        if known:  # wrong or not is no longer what was made up
            wanted = [one for one in checks if one.__name__ != "negative_data_rejection"]
        else:
            wanted = list(checks)
        case.validate_response(response, checks=wanted)

    try:
        run()
    except Unsatisfiable:
        # nothing of it can be wrong: it takes no parameters and no body
        assert mode is GenerationMode.NEGATIVE
        assert not operation.definition.raw.get("parameters")
        assert "requestBody" not in operation.definition.raw
