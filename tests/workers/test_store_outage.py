"""Jobs while the bucket's server fails: kept, waited for, given back; never failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from persistence.artifact_store import StoreUnavailable
from persistence.artifact_store.s3 import S3ArtifactStore
from persistence.settings import Settings
from tests.persistence.artifact_store.store_world import s3_store_of
from tests.s3_fault_proxy import Fault, S3FaultProxy
from tests.s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from tests.workers.worker_world import WorkerWorld
from workers import store_outage
from workers.runner_process import runner_environment
from workers.scratch import scratch_folder
from workers.store_outage import patiently


@dataclass(frozen=True)
class OnBucket:
    """A worker whose store is a bucket behind the fault proxy."""

    world: WorkerWorld
    store: S3ArtifactStore
    proxy: S3FaultProxy


@pytest.fixture
def on_bucket(tmp_path: Path, s3_service: S3Server, s3_proxy: S3FaultProxy) -> Iterator[OnBucket]:
    with s3_service.credentials():
        fields = s3_service.settings(s3_service.make_bucket(), url=s3_proxy.url)
        store = s3_store_of(Settings(data_dir=tmp_path, **fields))
        world = WorkerWorld(tmp_path)
        for sha256 in world.store.blobs():
            with world.store.open(sha256) as source, store.open_writer() as writer:
                writer.write(source.read())
                writer.commit()
        world.store = store  # type: ignore[assignment]  # where supervisors of this world look
        yield OnBucket(world, store, s3_proxy)


def test_a_job_waits_for_its_inputs_and_for_room_for_its_result(
    on_bucket: OnBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_outage, "_FIRST_PAUSE", 0.05)
    job_id = on_bucket.world.enqueue()
    on_bucket.proxy.add(Fault("reset", method="HEAD", times=9))
    on_bucket.proxy.add(Fault("status", method="PUT", times=9))
    supervisor = on_bucket.world.supervisor("work")
    assert supervisor.run(job_id) == "succeeded"
    (artifact,) = on_bucket.world.job(job_id).artifacts
    assert on_bucket.store.exists(artifact.sha256)


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
def test_a_store_that_stays_away_gives_the_job_back(
    on_bucket: OnBucket, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(store_outage, "PATIENCE_SECONDS", 0.0)
    job_id = on_bucket.world.enqueue()
    on_bucket.proxy.add(Fault("reset", method=method, times=None))
    supervisor = on_bucket.world.supervisor("work")
    assert supervisor.run(job_id) == "released"
    assert on_bucket.world.status(job_id) == "queued"
    on_bucket.proxy.clear()
    assert supervisor.run(job_id) == "succeeded"


def test_who_must_stop_does_not_wait() -> None:
    def away() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        patiently(away, lambda: True)


def test_a_runner_gets_no_credentials(
    tmp_path: Path, s3_service: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with s3_service.credentials(), scratch_folder(tmp_path, "job") as scratch:
        environment = runner_environment(scratch, threads=1, cuda_device=None)
    assert not [name for name in environment if name.startswith(("AWS_", "SECATEUR_"))]
    assert not {ACCESS_KEY, SECRET_KEY} & set(environment.values())
