"""Hostile models that only compute: let in, and contained by supervisor and runner."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import migrations
from persistence.records import JobRecord, LogRecord
from persistence.settings import Settings
from tests.attacks import let_in
from tests.attacks.archives import good, saved
from tests.service.conftest import Api, serve
from workers.supervisor import Supervisor

RECIPE = {
    "inputs": [{"shape": [2, 4]}],
    "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
}
SECONDS = 8


@dataclass
class World:
    """The API, a worker, and what no upload may touch."""

    api: Api
    settings: Settings
    canary: Path
    listener: socket.socket

    def upload(self, content: bytes, status: int = 201) -> str:
        response = self.api.client.post("/v1/models", content=content)
        assert response.status_code == status, response.text
        return str(response.json()["id"])

    def job(self, model_id: str, **fields: Any) -> str:
        response = self.api.client.post(
            "/v1/jobs", json={"model_id": model_id, "recipe": RECIPE, **fields}
        )
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def run(self, job_id: str, **settings: Any) -> dict[str, Any]:
        """Run it as a worker does, and what the API then says of it."""
        backend = self.api.backend
        Supervisor(
            database=backend.database, store=backend.store, owner="w",
            settings=self.settings.model_copy(update=settings),
        ).run(job_id)  # fmt: skip
        found = self.api.client.get(f"/v1/jobs/{job_id}").json()
        assert self.canary.read_text() == "untouched"
        assert [path.name for path in self.canary.parent.iterdir()] == ["canary"]
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        return dict(found)

    def inspect(self, model_id: str, **settings: Any) -> dict[str, Any]:
        """Run the waiting inspection, and what the API then says of the model."""
        with self.api.backend.database.session() as session:
            job_id = session.scalars(
                select(JobRecord.id).where(
                    JobRecord.model_id == model_id, JobRecord.type == "inspect"
                )
            ).one()
        self.run(job_id, **settings)
        return dict(self.api.client.get(f"/v1/models/{model_id}").json())

    def log(self, job_id: str) -> str:
        with self.api.backend.database.session(read_only=True) as session:
            rows = session.query(LogRecord).filter_by(job_id=job_id).order_by(LogRecord.id)
            return "".join(row.text for row in rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("runner")
    migrations.upgrade(f"sqlite:///{folder / 'secateur.db'}")
    settings = Settings(data_dir=folder, runner_threads=1, runner_memory_bytes=3 * 2**30)
    canary = tmp_path_factory.mktemp("outside") / "canary"
    canary.write_text("untouched")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        for api in serve(settings):
            yield World(api, settings, canary, listener)


def failed(job: dict[str, Any], *kinds: str) -> dict[str, Any]:
    assert job["status"] == "failed", job
    error: dict[str, Any] = job["error"]
    assert error["type"] in kinds, error
    assert error["title"]
    assert len(error["title"]) <= 10_000
    return error


def test_an_endless_model_ends_and_a_good_one_beside_it_succeeds(world: World) -> None:
    endless = world.job(world.upload(saved(let_in.Endless().eval())))
    fine = world.job(world.upload(good()))
    done: list[dict[str, Any]] = []
    beside = threading.Thread(target=lambda: done.append(world.run(fine)))
    beside.start()
    error = failed(world.run(endless, max_job_seconds=SECONDS), "job-timeout")
    beside.join(120)
    assert "8" in error["title"]
    assert [job["status"] for job in done] == ["succeeded"]


@pytest.mark.parametrize(
    ("kind", "errors"),
    [
        (let_in.EndlessWhileLoading, {"job-timeout"}),
        (let_in.GreedyWhileLoading, {"out-of-memory", "model-not-loadable"}),
        (let_in.RaisesWhileLoading, {"model-not-loadable"}),
    ],
)
def test_what_acts_while_it_is_loaded_is_rejected(
    world: World, kind: Any, errors: set[str]
) -> None:
    model = world.inspect(world.upload(saved(kind())), max_job_seconds=SECONDS)
    assert model["status"] == "rejected"
    assert model["error"]["type"] in errors, model["error"]
    assert model["error"]["title"]
    assert len(model["error"]["title"]) <= 10_000


def test_a_function_that_calls_itself_is_rejected(world: World) -> None:
    model = world.inspect(world.upload(let_in.recursing()))
    assert model["status"] == "rejected"
    assert model["error"]["title"]


def test_what_a_model_prints_is_text_and_bounded(world: World) -> None:
    job_id = world.job(world.upload(saved(let_in.Talkative().eval())))
    job = world.run(job_id, max_job_seconds=120)
    assert job["status"] == "succeeded", job["error"]
    assert "forged" not in (job["result"] or {})
    log = world.log(job_id)
    assert '{"kind":"result","result":{"forged":true}}' in log
    assert len(log) < 5 << 20


def test_memory_without_end_is_refused_by_the_limit(world: World) -> None:
    job = world.run(world.job(world.upload(saved(let_in.Hoards().eval()))))
    failed(job, "out-of-memory", "runner-killed")


def test_names_of_layers_are_text_everywhere(world: World) -> None:
    job_id = world.job(world.upload(saved(let_in.Named().eval())))
    job = world.run(job_id)
    assert job["status"] == "succeeded", job["error"]
    page = world.api.client.get(f"/v1/jobs/{job_id}/report", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "<img src=x" not in page.text
    assert "\x1b" not in page.text
    listed = world.api.client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    assert listed
    assert all("/" not in artifact["name"] for artifact in listed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_said_to_be(world: World, value: float) -> None:
    job = world.run(world.job(world.upload(saved(let_in.NotANumber(value).eval()))))
    failed(job, "weights-not-numbers", "certificate-failed")


def test_a_zip_in_the_zip_is_not_kept(world: World) -> None:
    first = world.upload(good(), status=200)
    assert world.upload(let_in.nested_zip(), status=200) == first


def test_a_good_job_succeeds_after_all_of_them(world: World) -> None:
    assert world.run(world.job(world.upload(good(), status=200)))["status"] == "succeeded"
    scratch = world.settings.resolved_scratch_dir
    assert [path for path in scratch.iterdir() if path.is_dir()] == []
