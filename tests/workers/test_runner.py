"""The real runner on real uploads, well behaved and not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from persistence.records import ModelRecord
from tests.workers import uploads
from tests.workers.worker_world import WorkerWorld, alive, wait_until
from workers import recording


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WorkerWorld]:
    world = WorkerWorld(tmp_path)
    yield world
    world.database.dispose()


def job(world: WorkerWorld, kind: type[nn.Module], type: str = "compress") -> str:
    model_id = world.add_model(uploads.scripted(kind))
    recipe = None if type == "inspect" else uploads.RECIPE
    return world.enqueue(type=type, model_id=model_id, recipe=recipe)


def test_a_small_model_is_compressed(world: WorkerWorld) -> None:
    job_id = job(world, uploads.Linear)
    assert world.supervisor().run(job_id) == "succeeded", world.job(job_id).error
    done = world.job(job_id)
    kinds = {artifact.kind: artifact for artifact in done.artifacts}
    assert set(kinds) == {"model", "report_json", "report_html", "recipe"}
    assert done.result is not None
    assert done.result["constraints_met"] is True
    report = json.loads(world.store.path(kinds["report_json"].sha256).read_text())
    assert report["after"]["parameters"] < report["before"]["parameters"]
    assert report["provenance"]["result_sha256"] == kinds["model"].sha256
    assert report["provenance"]["threads"] == 1
    page = world.store.path(kinds["report_html"].sha256).read_text()
    assert page.lstrip().lower().startswith("<!doctype html")


def test_inspection_makes_a_model_ready_or_rejects_it(world: WorkerWorld) -> None:
    good = job(world, uploads.Linear, "inspect")
    assert world.supervisor().run(good) == "succeeded"
    bad = world.enqueue(type="inspect", recipe=None)  # the world's first model is no archive
    assert world.supervisor().run(bad) == "failed"
    with world.database.session(read_only=True) as session:
        ready = session.get_one(ModelRecord, world.job(good).model_id)
        rejected = session.get_one(ModelRecord, world.job(bad).model_id)
    assert ready.status == "ready"
    assert ready.info is not None
    assert ready.info["parameters"] == 4 * 8 + 8 + 8 * 2 + 2
    assert rejected.status == "rejected"
    assert rejected.error is not None
    assert rejected.error["type"] == "not-torchscript"


def test_a_plan_is_the_result_of_its_job(world: WorkerWorld) -> None:
    job_id = job(world, uploads.Linear, "plan")
    assert world.supervisor().run(job_id) == "succeeded"
    result = world.job(job_id).result
    assert result is not None
    assert result["predicted"]["parameters"] < result["before"]["parameters"]
    assert world.job(job_id).artifacts == []


def test_a_model_that_raises_fails_its_job_with_the_models_words(world: WorkerWorld) -> None:
    job_id = job(world, uploads.Raising)
    assert world.supervisor().run(job_id) == "failed"
    error = world.error(job_id)
    assert error["type"] == "model-raised"
    assert "refuses to run" in json.dumps(error)
    assert "Traceback" not in json.dumps(error)


@pytest.mark.exhaustive
def test_a_model_that_never_returns_is_stopped_by_a_cancel(world: WorkerWorld) -> None:
    job_id = job(world, uploads.Endless)
    supervisor = world.supervisor(grace_seconds=0.3)
    with world.running(supervisor, job_id) as outcomes:
        wait_until(lambda: "looping now" in world.log(job_id), 60)
        [runner] = [
            int(stat.parent.name)
            for stat in Path("/proc").glob("[0-9]*/stat")
            if job_id.encode() in command_line(stat.parent)
            and b"workers.runner" in command_line(stat.parent).split(b"\0")
        ]
        world.cancel(job_id)
    assert outcomes == ["canceled"]
    assert not alive(runner)


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.exhaustive
def test_what_a_model_prints_is_in_the_log_and_bounded(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_LOG_CHARACTERS", 10_000)
    job_id = job(world, uploads.Talkative, "plan")
    assert world.supervisor().run(job_id) == "succeeded"
    log = world.log(job_id)
    assert "talk talk" in log
    assert 10_000 <= len(log) < 10_100


def test_a_model_that_wants_too_much_memory_fails_its_job_only(tmp_path: Path) -> None:
    world = WorkerWorld(tmp_path, runner_memory_bytes=4 << 30)
    job_id = job(world, uploads.Greedy)
    assert world.supervisor().run(job_id) == "failed"
    error = world.error(job_id)
    assert error["type"] in {"out-of-memory", "model-raised"}
    assert "memory" in json.dumps(error)
    world.database.dispose()
