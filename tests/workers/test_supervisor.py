"""Supervision of runners that work, fail, crash, hang and lie."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from persistence.artifact_store import ArtifactStore, fetch_file, store_file
from persistence.job_queue import claim, database_time, mark_sent, unsent
from persistence.records import DatasetRecord, JobRecord, MetricRecord, StageRecord
from tests import services
from tests.workers.worker_world import WorkerWorld, alive, processes_of, wait_until
from workers import recording
from workers.blob_sweep import sweep_blobs
from workers.draining import Drain


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WorkerWorld]:
    world = WorkerWorld(tmp_path)
    yield world
    world.database.dispose()


def test_what_a_runner_says_and_makes_is_kept(tmp_path: Path, database_url: str) -> None:
    world = WorkerWorld(tmp_path, database_url)
    job_id = world.enqueue()
    assert world.supervisor("work").run(job_id) == "succeeded"
    job = world.job(job_id)
    assert (job.status, job.result, job.error, job.stage) == (
        "succeeded", {"fine": True}, None, "prune",
    )  # fmt: skip
    [artifact] = job.artifacts
    assert (artifact.kind, artifact.name, artifact.bytes) == ("model", "compact.pt", 7)
    assert world.store.path(artifact.sha256).read_bytes() == b"smaller"
    types = world.event_types(job_id)
    assert types[:3] == ["queued", "started", "stage_started"]
    assert types[-2:] == ["stage_finished", "succeeded"]
    assert types.count("metric") == 3
    [remark] = [event.data for event in world.events(job_id) if event.type == "log"]
    assert remark == {"message": "half way", "data": {"note": "nul \ufffd and ? surrogate"}}
    assert world.log(job_id) == "printed \ufffd by the runner\n"
    with world.database.session(read_only=True) as session:
        assert [m.step for m in session.query(MetricRecord).order_by(MetricRecord.seq)] == [0, 1, 2]
        assert session.query(StageRecord).one().status == "succeeded"
    assert world.scratch() == []
    world.database.dispose()


def test_a_runner_gets_copies_and_no_secrets(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_DATABASE_URL", "postgresql://user:secret@db/x")
    monkeypatch.setenv("SECATEUR_BROKER_URL", "redis://:secret@broker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    job_id = world.enqueue(dataset_id=world.dataset_id)
    assert world.supervisor("tell").run(job_id) == "succeeded"
    told = world.job(job_id).result
    assert told is not None
    environment = told["environment"]
    assert "secret" not in str(environment)
    scratch = world.settings.resolved_scratch_dir / f"{job_id}.1"
    assert {name: environment[name] for name in ("HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES")} == {
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PYTHONHASHSEED"] == "0"
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert told["inputs"] == {"model.pt": "a model", "dataset.safetensors": "a dataset"}
    assert told["links"] == []
    assert told["cwd"] == str(scratch / "work")
    assert told["group"] is True
    # stdin, stdout, stderr and the events; nothing inherited
    assert len(told["descriptors"]) == 4
    assert told["job"]["device"] == "cpu"
    assert told["job"]["recipe"]["stages"][0]["stage"] == "prune"


def test_a_gpu_worker_pins_its_device_for_the_runner(tmp_path: Path) -> None:
    world = WorkerWorld(tmp_path, gpu_device="1")
    for device, expected in (("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")):
        job_id = world.enqueue(device=device, queue="gpu")
        assert world.supervisor("tell").run(job_id) == "succeeded"
        told = world.job(job_id).result
        assert told is not None
        assert told["job"]["device"] == expected
        assert told["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    world.database.dispose()


def test_a_job_for_a_gpu_fails_on_a_worker_without_one(world: WorkerWorld) -> None:
    job_id = world.enqueue(device="cuda")
    assert world.supervisor("work").run(job_id) == "failed"
    assert world.error(job_id)["type"] == "device-unavailable"
    assert world.error(job_id)["where"] == "device"


def test_a_job_whose_file_is_gone_fails_and_says_which(world: WorkerWorld) -> None:
    with world.database.session(read_only=True) as session:
        sha256 = session.query(DatasetRecord).one().sha256
    world.store.delete(sha256)
    job_id = world.enqueue(dataset_id=world.dataset_id)
    assert world.supervisor("work").run(job_id) == "failed"
    error = world.error(job_id)
    assert (error["type"], error["where"]) == ("input-missing", "dataset_id")
    assert world.dataset_id in error["title"]


def test_a_stored_recipe_that_is_no_longer_valid_fails_and_names_the_field(
    world: WorkerWorld,
) -> None:
    job_id = world.enqueue(recipe={"stages": [{"stage": "prune", "allocation": {"amount": 2}}]})
    assert world.supervisor("work").run(job_id) == "failed"
    assert world.error(job_id)["where"] == "recipe.stages.0.prune.allocation.amount"


def test_a_failed_job_keeps_the_artifacts_it_made(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    assert world.supervisor("fail-with-artifacts").run(job_id) == "failed"
    assert world.error(job_id) == {
        "type": "constraint-unmet",
        "title": "Too slow.",
        "hint": "Prune less.",
        "where": "",
        "retryable": False,
    }
    assert [artifact.kind for artifact in world.job(job_id).artifacts] == ["report_json"]


@pytest.mark.parametrize(
    ("behaviour", "type", "title"),
    [
        ("segfault", "runner-crashed", "SIGSEGV"),
        ("killed", "runner-killed", "memory"),
        ("status-7", "runner-crashed", "status 7"),
        ("no-result", "runner-misbehaved", "without a result"),
        ("not-json", "runner-misbehaved", "not JSON"),
        ("unknown-kind", "runner-misbehaved", "kind"),
        ("not-finite", "runner-misbehaved", "finite"),
        ("deep", "runner-misbehaved", "not JSON"),
        ("endless-line", "runner-misbehaved", "a line of more than"),
        ("outside-path", "runner-misbehaved", "'../job.json' is not a path inside"),
        ("absolute-path", "runner-misbehaved", "is not a path inside"),
        ("link", "runner-misbehaved", "cannot be opened"),
        ("linked-folder", "runner-misbehaved", "cannot be opened"),
        ("hard-link", "runner-misbehaved", "plain file of its own"),
        ("pipe", "runner-misbehaved", "plain file of its own"),
        ("absent-file", "runner-misbehaved", "No such file"),
        ("checkpoint-outside", "runner-misbehaved", "'../job.json' is not a path inside"),
    ],
)
def test_a_runner_that_misbehaves_fails_its_job_and_says_how(
    world: WorkerWorld, behaviour: str, type: str, title: str
) -> None:
    job_id = world.enqueue()
    assert world.supervisor(behaviour).run(job_id) == "failed"
    error = world.error(job_id)
    assert (error["type"], title in error["title"]) == (type, True), error
    assert error["hint"]
    assert world.job(job_id).artifacts == []
    assert world.scratch() == []
    with world.database.session(read_only=True) as session:
        assert {stage.status for stage in session.query(StageRecord)} <= {"failed"}


def test_the_last_words_of_a_crashed_runner_are_in_the_log(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    world.supervisor("status-7").run(job_id)
    assert world.log(job_id) == "last words\n"


def test_a_flood_is_kept_in_bounds_and_the_lease_alive(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_EVENTS", 50)
    monkeypatch.setattr(recording, "MAX_METRICS", 70)
    monkeypatch.setattr(recording, "MAX_LOG_CHARACTERS", 5000)
    job_id = world.enqueue()
    world.supervisor("flood").run(job_id)
    assert world.status(job_id) == "succeeded"
    types = world.event_types(job_id)
    assert types.count("log") == 50 + 2
    assert types.count("metric") == 70
    cuts = [e.data["message"] for e in world.events(job_id) if "not kept" in str(e.data)]
    assert cuts == [
        "too many events: the rest is not kept",
        "too many metrics: the rest is not kept",
    ]
    log = world.log(job_id)
    assert 5000 < len(log) < 5100
    assert log.endswith("[the log is too long: the rest is not kept]\n")


def pids_of(world: WorkerWorld, job_id: str) -> list[int]:
    """Of all processes of the job, from outside, once it says that they have started."""
    wait_until(lambda: "log" in world.event_types(job_id))
    return processes_of(job_id)


def test_cancel_stops_the_whole_process_group(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    supervisor = world.supervisor("children", grace_seconds=0.3)
    with world.running(supervisor, job_id) as outcomes:
        pids = pids_of(world, job_id)
        assert len(pids) >= 2, "the runner and its child"
        world.cancel(job_id)
    assert outcomes == ["canceled"]
    assert not any(alive(pid) for pid in pids)
    job = world.job(job_id)
    assert (job.status, job.error, job.lease_owner) == ("canceled", None, None)
    assert world.scratch() == []


def test_what_a_runner_leaves_running_ends_with_it(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    assert world.supervisor("orphan").run(job_id) == "succeeded"
    assert processes_of(job_id) == []


def test_a_job_that_takes_too_long_fails(tmp_path: Path) -> None:
    world = WorkerWorld(tmp_path, max_job_seconds=1)
    job_id = world.enqueue()
    started = time.monotonic()
    assert world.supervisor("sleep", grace_seconds=0.3).run(job_id) == "failed"
    assert time.monotonic() - started < 10
    error = world.error(job_id)
    assert (error["type"], error["retryable"]) == ("job-timeout", False)
    assert "SECATEUR_MAX_JOB_SECONDS" in error["hint"]
    world.database.dispose()


def test_a_supervisor_that_lost_its_lease_kills_its_runner_and_writes_nothing(
    world: WorkerWorld,
) -> None:
    job_id = world.enqueue()
    with world.running(world.supervisor("children"), job_id) as outcomes:
        pids = pids_of(world, job_id)
        take_over(world, job_id)
        before = world.job(job_id).version
    assert outcomes == ["lost"]
    assert not any(alive(pid) for pid in pids)
    job = world.job(job_id)
    assert (job.status, job.lease_owner, job.attempt) == ("running", "worker-b", 2)
    assert job.version == before
    assert world.scratch() == []


def take_over(world: WorkerWorld, job_id: str) -> None:
    """What a reconciler and another worker do when they believe the first one dead."""
    with world.database.session() as session:
        session.get_one(JobRecord, job_id).status = "queued"
        session.flush()
        assert claim(session, job_id, "worker-b", 60) is not None


def test_a_stopping_worker_gives_its_job_back_and_the_next_resumes(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    drain = Drain()
    first = world.supervisor("resume", drain=drain, grace_seconds=0.3)
    with world.running(first, job_id) as outcomes:
        wait_until(lambda: bool(world.job(job_id).artifacts))
        drain.request(0)
    assert outcomes == ["released"]
    assert world.status(job_id) == "queued"
    with world.database.session() as session:
        mark_sent(session, unsent(session, 10))
    assert first.run(job_id) == "not claimed"
    with world.database.session() as session:
        assert [poke.job_id for poke in unsent(session, 10)] == [job_id], "left to another worker"
    [checkpoint] = world.job(job_id).artifacts
    assert checkpoint.kind == "checkpoint"
    assert world.contents() == {b"a model", b"a dataset", b"epoch 2"}, "replaced ones are gone"
    assert world.supervisor("resume", owner="worker-b").run(job_id) == "succeeded"
    job = world.job(job_id)
    assert (job.attempt, job.result, job.artifacts) == (2, {"resumed": "epoch 2"}, [])


@pytest.mark.parametrize(("behaviour", "kept"), [("fails-for-good", 0), ("fails-this-time", 1)])
def test_a_checkpoint_outlives_only_a_failure_that_may_not_come_again(
    world: WorkerWorld, behaviour: str, kept: int
) -> None:
    job_id = world.enqueue()
    assert world.supervisor(behaviour).run(job_id) == "failed"
    assert world.error(job_id)["type"] == "unlucky"
    assert "checkpoint" in world.event_types(job_id)
    assert [artifact.kind for artifact in world.job(job_id).artifacts] == ["checkpoint"] * kept
    assert len(world.contents()) == 2 + kept


def test_a_sweep_deletes_old_files_that_no_row_names(world: WorkerWorld) -> None:
    store_file(world.store, io.BytesIO(b"left by a crash"))
    abandoned = world.store.incoming / "half"
    abandoned.write_bytes(b"half an upload")
    assert sweep_blobs(world.database, world.store) == 0, "it may be on its way to a row"
    day = time.time() - 25 * 3600
    for path in [*world.store.root.rglob("*")]:
        os.utime(path, (day, day))
    assert sweep_blobs(world.database, world.store) == 1
    assert world.contents() == {b"a model", b"a dataset"}
    assert not abandoned.exists()


def test_two_workers_poked_for_one_job_run_it_once(world: WorkerWorld) -> None:
    job_id = world.enqueue()
    with world.running(world.supervisor("work"), job_id) as first:
        second = world.supervisor("work", owner="worker-b").run(job_id)
    assert sorted([*first, second]) == ["not claimed", "succeeded"]
    assert world.event_types(job_id).count("started") == 1


def test_a_fault_of_the_supervisor_itself_ends_the_job_at_once(
    world: WorkerWorld, tmp_path: Path
) -> None:
    (tmp_path / "scratch").write_text("a file where the scratch folder should be")
    job_id = world.enqueue()
    with pytest.raises(FileExistsError):
        world.supervisor("work").run(job_id)
    assert world.error(job_id)["type"] == "internal-error"
    assert world.error(job_id)["retryable"] is True


def test_a_database_that_is_away_while_inputs_are_fetched_gives_the_job_back(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server closed the connection"))

    job_id = world.enqueue()
    monkeypatch.setattr("workers.supervisor.prepare", away)
    assert world.supervisor("work").run(job_id) == "released"
    assert world.status(job_id) == "queued"
    monkeypatch.undo()
    assert world.supervisor("work").run(job_id) == "succeeded"


def test_a_database_that_goes_away_and_comes_back_costs_nothing(
    tmp_path: Path, postgres_service: services.Service
) -> None:
    """Every connection of the worker is cut, twice, while the job runs."""
    with services.postgres_database(postgres_service) as url:
        world = WorkerWorld(tmp_path, url)
        job_id = world.enqueue()
        name = url.rpartition("/")[2]
        drain = Drain()
        with world.running(world.supervisor("resume", drain=drain), job_id) as outcomes:
            wait_until(lambda: bool(world.job(job_id).artifacts))
            for _ in range(2):
                with psycopg.connect(postgres_service.url, autocommit=True) as admin:
                    admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                        [name],
                    )
                time.sleep(0.3)
            assert world.status(job_id) == "running"
            drain.request(0)
        assert outcomes == ["released"]
        world.database.dispose()


def test_the_modules_of_the_celery_parent_import_no_torch(tmp_path: Path) -> None:
    code = "import sys, workers.tasks, workers.dispatcher, workers.worker\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SECATEUR_DATA_DIR": str(tmp_path)},
    )
    assert done.stdout.strip() == "False"


def test_a_running_job_expires_at_its_deadline_and_keeps_its_checkpoint(
    world: WorkerWorld,
) -> None:
    with world.database.session(read_only=True) as session:
        deadline = database_time(session) + timedelta(seconds=3)
    job_id = world.enqueue(deadline=deadline)
    assert world.supervisor("resume", grace_seconds=0.3).run(job_id) == "expired"
    job = world.job(job_id)
    assert (job.status, (job.error or {})["type"]) == ("expired", "deadline-passed")
    assert [artifact.kind for artifact in job.artifacts] == ["checkpoint"]
    assert world.event_types(job_id)[-1] == "expired"
    assert world.scratch() == []


def test_the_running_time_counts_over_all_attempts(world: WorkerWorld) -> None:
    job_id = world.enqueue(max_run_seconds=1000)
    with world.database.session() as session:
        session.get_one(JobRecord, job_id).ran_seconds = 999.0
    assert world.supervisor("resume", grace_seconds=0.3).run(job_id) == "failed"
    error = world.error(job_id)
    assert (error["type"], "1000 seconds" in error["title"]) == ("job-timeout", True)
    assert world.job(job_id).ran_seconds >= 1000


def test_a_worker_that_is_told_twice_stops_at_once() -> None:
    drain = Drain()
    drain.request(600)
    assert (drain.requested, drain.over) == (True, False)
    drain.request(600)
    assert drain.over


def test_a_stop_while_inputs_are_copied_gives_the_job_back_before_its_runner_starts(
    world: WorkerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is never fetched: the worker was told to stop during the first."""
    drain = Drain()
    fetched: list[str] = []

    def fetch(store: ArtifactStore, sha256: str, target: Path) -> None:
        fetched.append(target.name)
        fetch_file(store, sha256, target)
        drain.request(0)

    monkeypatch.setattr("workers.inputs.fetch_file", fetch)
    job_id = world.enqueue(dataset_id=world.dataset_id)
    assert world.supervisor("work", drain=drain).run(job_id) == "released"
    assert fetched == ["model.pt"]
    assert world.event_types(job_id) == ["queued", "started", "requeued"]
    assert world.scratch() == []
