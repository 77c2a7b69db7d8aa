"""A job that was called off and tried again ends with the bits of one that nobody disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence.job_queue import retry
from persistence.records import JobRecord
from tests.workers import uploads
from tests.workers.worker_world import WorkerWorld, wait_until

EPOCHS = 3


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WorkerWorld]:
    world = WorkerWorld(tmp_path)
    yield world
    world.database.dispose()


def tried_again(world: WorkerWorld, job_id: str, **changes: Any) -> str:
    with world.database.session() as session:
        old = session.get_one(JobRecord, job_id)
        new = retry(
            session,
            old,
            available=world.store.exists,
            queue="cpu",
            priority=0,
            deadline=None,
            max_wait_seconds=None,
            max_run_seconds=None,
            **changes,
        )
        return new.id


def made(world: WorkerWorld, job_id: str) -> dict[str, str]:
    """What the job made, but for the report, which holds durations."""
    kinds = ("model", "recipe", "masks")
    return {one.kind: one.sha256 for one in world.job(job_id).artifacts if one.kind in kinds}


@pytest.mark.exhaustive
def test_a_retried_job_makes_the_bits_of_an_undisturbed_one(
    world: WorkerWorld, tmp_path: Path
) -> None:
    model, data = uploads.lenet_and_digits(tmp_path)
    options: dict[str, Any] = {
        "model_id": world.add_model(model),
        "dataset_id": world.add_dataset(data),
        "recipe": uploads.training_recipe(EPOCHS) | {"checkpoint": {"steps": 1}},
    }
    whole = world.enqueue(**options)
    assert world.supervisor().run(whole) == "succeeded"
    expected = made(world, whole)
    assert "model" in expected

    disturbed = world.enqueue(**options)
    with world.running(world.supervisor(), disturbed) as outcomes:
        wait_until(lambda: "checkpoint" in world.event_types(disturbed), 60)
        world.cancel(disturbed)
    assert outcomes == ["canceled"]
    assert {one.kind for one in world.job(disturbed).artifacts} >= {"checkpoint"}

    again = tried_again(world, disturbed)
    told = next(event.data for event in world.events(again) if event.type == "retry")
    assert told == {"of": disturbed, "resumes": True}
    assert world.supervisor().run(again) == "succeeded"
    assert any("resumed" in str(event.data) for event in world.events(again))
    assert made(world, again) == expected
    assert world.job(again).retry_of_id == disturbed
    assert [one.kind for one in world.job(again).artifacts if one.kind == "checkpoint"] == []
    assert world.job(disturbed).artifacts, "the old one keeps its own"


def test_a_retry_without_a_checkpoint_starts_over_and_says_so(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    assert world.supervisor("fails-this-time").run(job_id) == "failed"
    [checkpoint] = world.job(job_id).artifacts
    kept = tried_again(world, job_id)
    world.store.delete(checkpoint.sha256)
    gone = tried_again(world, job_id)
    told = next(event.data for event in world.events(gone) if event.type == "retry")
    assert (told["resumes"], "starts over" in told["reason"]) == (False, True)
    assert world.job(gone).artifacts == []
    # its file went between the retry and the claim
    assert world.supervisor("tell").run(kept) == "succeeded"
    assert any("starts over" in str(e.data) for e in world.events(kept) if e.type == "log")
    result = world.job(kept).result
    assert result is not None
    assert result["job"]["checkpoint"] is None
