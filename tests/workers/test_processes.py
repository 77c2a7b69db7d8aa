"""Workers and dispatchers as processes: brokers, crashes, restarts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.records import EventRecord, ModelRecord
from persistence.settings import Settings
from tests import services
from tests.workers import uploads
from tests.workers.processes import dispatcher, worker
from tests.workers.worker_world import WorkerWorld, alive, wait_until
from workers.scratch import sweep
from workers.worker import find_problem


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WorkerWorld]:
    world = WorkerWorld(tmp_path)
    yield world
    world.database.dispose()


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def short_job(world: WorkerWorld) -> str:
    """A job whose end needs no runner, and so no torch: its model's file is gone."""
    model_id = world.add_model(b"a model whose file is lost")
    with world.database.session(read_only=True) as session:
        world.store.delete(session.get_one(ModelRecord, model_id).sha256)
    return world.enqueue(type="inspect", model_id=model_id, recipe=None)


def ended_short(world: WorkerWorld, job_id: str) -> bool:
    return world.status(job_id) == "failed" and world.error(job_id)["type"] == "input-missing"


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_job_travels_through_the_broker(
    broker: str, request: pytest.FixtureRequest, world: WorkerWorld
) -> None:
    """Through that of files it travels in the tests below, and in embedded mode's."""
    environment = {"SECATEUR_BROKER_URL": request.getfixturevalue(f"{broker}_url")}
    job_id = short_job(world)
    with dispatcher(world, **environment), worker(world, **environment):
        wait_until(lambda: ended_short(world, job_id), 60)
    assert world.job(job_id).attempt == 1
    assert world.scratch() == []


def first_checkpoint(world: WorkerWorld, job_id: str, epoch_metrics: int) -> None:
    """Wait until the job trains and left a checkpoint."""

    def there() -> bool:
        types = world.event_types(job_id)
        return types.count("metric") >= epoch_metrics and "checkpoint" in types

    wait_until(there, 90)


def training_job(world: WorkerWorld, folder: Path, epochs: int) -> str:
    model, data = uploads.lenet_and_digits(folder)
    return world.enqueue(
        model_id=world.add_model(model),
        dataset_id=world.add_dataset(data),
        recipe=uploads.training_recipe(epochs),
    )


def resumptions(world: WorkerWorld, job_id: str) -> list[EventRecord]:
    return [e for e in world.events(job_id) if "resumed" in str(e.data)]


@pytest.mark.exhaustive
def test_a_job_outlives_a_stopped_worker_and_a_killed_one(
    world: WorkerWorld, tmp_path: Path
) -> None:
    """SIGTERM: the job goes back at once. kill -9: its runner dies too, the lease expires. Both
    times the next worker goes on from the last checkpoint."""
    job_id = training_job(world, tmp_path, epochs=5000)
    with dispatcher(world):
        with worker(world, "--drain-seconds", "0.3") as first:
            first_checkpoint(world, job_id, epoch_metrics=5)
            [runner] = first.runners()
            assert first.stop() == 0
        assert not alive(runner)
        assert world.status(job_id) == "queued"
        assert world.event_types(job_id)[-1] == "requeued"
        assert world.scratch() == []
        with worker(world) as second:
            wait_until(lambda: len(resumptions(world, job_id)) == 1, 60)
            [runner] = second.runners()
            second.kill()
            wait_until(lambda: not alive(runner), 5)
            assert world.status(job_id) == "running"
            assert world.scratch() == [f"{job_id}.2"]
        with worker(world) as third:
            wait_until(lambda: len(resumptions(world, job_id)) == 2, 60)
            assert "removed scratch folders of dead workers" in third.output
            world.cancel(job_id)
            wait_until(lambda: world.status(job_id) == "canceled", 20)
    assert world.job(job_id).attempt == 3
    types = world.event_types(job_id)
    assert (types.count("started"), types.count("lease_expired")) == (3, 1)
    assert types[-1] == "canceled"
    assert world.scratch() == []


@pytest.mark.exhaustive
def test_a_worker_that_is_told_twice_gives_its_job_back_at_once(
    world: WorkerWorld, tmp_path: Path
) -> None:
    """Twice Ctrl-C, or twice SIGTERM, within a long time to drain: the job's checkpoint is stored,
    its lease is free, and no attempt counts as a death."""
    job_id = training_job(world, tmp_path, epochs=5000)
    with dispatcher(world):
        for number, signal_ in enumerate((signal.SIGINT, signal.SIGTERM)):
            with worker(world, "--drain-seconds", "600") as started:
                wait_until(lambda: started.runners() != [], 60)
                if number == 0:
                    first_checkpoint(world, job_id, epoch_metrics=2)
                else:
                    wait_until(lambda: len(resumptions(world, job_id)) == 1, 60)
                [runner] = started.runners()
                started.process.send_signal(signal_)
                started.wait_for("shutdown")
                assert alive(runner), "the first time, the job goes on"
                started.process.send_signal(signal_)
                started.process.wait(timeout=30)
            assert not alive(runner)
            job = world.job(job_id)
            assert (job.status, job.lease_owner) == ("queued", None), started.output
            assert "checkpoint" in {artifact.kind for artifact in job.artifacts}
    assert world.event_types(job_id).count("requeued") == 2
    assert "lease_expired" not in world.event_types(job_id)
    assert world.scratch() == []


@pytest.mark.exhaustive
def test_a_lost_message_is_sent_again_and_two_workers_share_a_queue(world: WorkerWorld) -> None:
    model_id = world.add_model(uploads.scripted(uploads.Linear))
    jobs = [world.enqueue(type="inspect", model_id=model_id, recipe=None) for _ in range(2)]
    messages = world.settings.data_dir / "broker" / "messages"
    with dispatcher(world, "--only", "dispatch"):
        wait_until(lambda: len(list(messages.glob("*.msg"))) == 2)
    for message in messages.glob("*.msg"):
        message.unlink()
    with (
        worker(world) as first,
        worker(world) as second,
        dispatcher(world, SECATEUR_REQUEUE_AFTER_SECONDS="0.5"),
    ):
        wait_until(lambda: {world.status(job_id) for job_id in jobs} == {"succeeded"}, 60)
        assert all("job claimed" in started.output for started in (first, second))
        # the libraries a process has mapped tell what it imported
        assert "libtorch" not in maps(first.pid) + maps(second.pid)
    assert {world.job(job_id).attempt for job_id in jobs} == {1}


def test_the_dispatcher_outlives_an_outage_of_the_broker(
    world: WorkerWorld, tmp_path: Path
) -> None:
    port = services.free_port()
    environment = {"SECATEUR_BROKER_URL": f"redis://{services.HOST}:{port}/0"}
    job_id = short_job(world)
    with dispatcher(world, **environment) as started:
        started.wait_for("dispatch failed")
        path = services.binary("redis-server", "usr/bin", "redis-server")
        arguments = [path, "--bind", services.HOST, "--port", str(port), "--save", ""]
        with services.server_process(
            [*arguments, "--dir", str(tmp_path)],
            lambda: services._redis_version(port),
            tmp_path / "redis.log",
        ):
            started.wait_for("dispatch works again")
            with worker(world, **environment):
                wait_until(lambda: ended_short(world, job_id), 60)


def test_a_worker_says_why_it_cannot_serve_a_queue(tmp_path: Path) -> None:
    plain, gpu = Settings(data_dir=tmp_path), Settings(data_dir=tmp_path, gpu_device="0")
    assert find_problem(plain, ["cpu"], 4) is None
    assert "no such queue: tpu; there are cpu, gpu" in str(find_problem(plain, ["tpu"], 1))
    assert "needs SECATEUR_GPU_DEVICE" in str(find_problem(plain, ["cpu", "gpu"], 1))
    assert "one job at a time" in str(find_problem(gpu, ["gpu"], 2))
    ended = subprocess.run(
        [sys.executable, "-m", "workers.worker", "--queues", "tpu"],
        env={"PATH": "/usr/bin", "SECATEUR_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, "no such queue: tpu" in ended.stderr) == (2, True)


def test_sweeping_leaves_the_folders_of_living_workers(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    with world.running(world.supervisor("sleep", grace_seconds=0.3), job_id):
        wait_until(lambda: "log" in world.event_types(job_id))
        stale = world.settings.resolved_scratch_dir / "job_dead.1"
        (stale / "work").mkdir(parents=True)
        assert sweep(world.settings.resolved_scratch_dir) == ["job_dead.1"]
        (stale / "work").mkdir(parents=True)
        assert world.supervisor(owner="another").run(short_job(world)) == "failed"
        assert not stale.exists(), "the next job of the machine swept it"
        assert world.scratch() == [f"{job_id}.1"]
        world.cancel(job_id)
