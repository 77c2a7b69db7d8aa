"""Programs that take too much fail their own job, with the limit and its setting in the error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.sandbox.inside import LEVELS
from tests.workers.worker_world import RECIPE, WorkerWorld
from workers.sandbox.choice import Containment
from workers.sandbox.launch import Level


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("behaviour", "type", "setting", "value"),
    [
        ("spin", "cpu-time-exceeded", "runner_cpu_seconds", 1),
        ("hoard", "out-of-memory", "runner_memory_bytes", 300 << 20),
        ("bomb", "too-many-processes", "runner_processes", 60),
        ("fill", "scratch-full", "runner_scratch_bytes", 20 << 20),
    ],
)
def test_a_program_that_takes_too_much_fails_its_own_job(  # noqa: PLR0917
    tmp_path: Path, level: Level, behaviour: str, type: str, setting: str, value: int
) -> None:
    world = WorkerWorld(tmp_path, lease_seconds=30.0, **{setting: value})
    containment = Containment(level)
    job_id = world.enqueue()
    assert world.supervisor(behaviour, containment=containment).run(job_id) == "failed"
    error = world.error(job_id)
    assert (error["type"], f"SECATEUR_{setting.upper()}" in error["hint"]) == (type, True), error
    assert world.scratch() == []
    after = world.enqueue()
    assert world.supervisor("work", containment=containment).run(after) == "succeeded"
    world.database.dispose()


def test_training_in_several_processes_needs_namespaces_and_says_so(tmp_path: Path) -> None:
    world = WorkerWorld(tmp_path)
    job_id = world.enqueue(recipe=RECIPE | {"devices": 2})
    assert world.supervisor("work", containment=Containment("kernel")).run(job_id) == "failed"
    error = world.error(job_id)
    assert (error["type"], error["where"]) == ("sandbox-insufficient", "recipe.devices")
    assert "bubblewrap" in error["hint"]
    world.database.dispose()
