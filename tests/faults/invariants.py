"""What must hold once the faults are over and every job has ended."""

from __future__ import annotations

from collections import Counter

from secateur.resources import TERMINAL
from sqlalchemy import func, select

from persistence import blobs
from persistence.job_queue import shares
from persistence.records import ArtifactRecord, EventRecord, JobRecord, OutboxRecord
from tests.faults.cluster import Cluster, until
from workers.blob_sweep import sweep_blobs


def check(cluster: Cluster) -> int:
    """Wait for peace, then look at everything; returns how many jobs there were.

    Call it after a job that began when all faults were over: its worker has swept the scratch
    folders of dead ones.
    """
    until(lambda: _going_on(cluster) == [], "every accepted job ended", 600)
    until(lambda: cluster.runners() == [], "no runner outlives its job", 30)
    until(lambda: _left_in_scratch(cluster) == [], "scratch folders are gone", 30)
    until(lambda: _pokes(cluster) == 0, "the outbox is settled", 60)
    jobs = _ended_once(cluster)
    _every_artifact_is_there(cluster)
    _nothing_else_is_there(cluster)
    with cluster.database.session(read_only=True) as session:
        drifts = shares.drifts(session)
    assert drifts == [], drifts
    return jobs


def _going_on(cluster: Cluster) -> list[str]:
    with cluster.database.session(read_only=True) as session:
        query = select(JobRecord.id).where(JobRecord.status.not_in(TERMINAL))
        return list(session.scalars(query))


def _left_in_scratch(cluster: Cluster) -> list[str]:
    return [path.name for path in cluster.scratch.iterdir() if not path.name.startswith(".")]


def _pokes(cluster: Cluster) -> int:
    with cluster.database.session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(OutboxRecord)) or 0


def _ended_once(cluster: Cluster) -> int:
    """One terminal state, one terminal event that agrees with it, and nobody's lease."""
    with cluster.database.session(read_only=True) as session:
        rows = session.execute(
            select(JobRecord.id, JobRecord.status, JobRecord.lease_owner, JobRecord.finished_at)
        ).all()
        events = session.execute(
            select(EventRecord.job_id, EventRecord.type).where(EventRecord.type.in_(TERMINAL))
        ).all()
        numbers = session.execute(
            select(EventRecord.job_id, func.count(), func.max(EventRecord.seq)).group_by(
                EventRecord.job_id
            )
        ).all()
    ends = Counter(job_id for job_id, _ in events)
    told = {row.job_id: row.type for row in events}
    for row in rows:
        assert ends[row.id] == 1, f"{row.id} ended {ends[row.id]} times"
        assert told[row.id] == row.status, f"{row.id} is {row.status}, told as {told[row.id]}"
        assert row.lease_owner is None, f"{row.id} still has a lease"
        assert row.finished_at is not None, row.id
    for job_id, count, last in numbers:
        assert count == last, f"{job_id}: {count} events numbered up to {last}"
    return len(rows)


def _every_artifact_is_there(cluster: Cluster) -> None:
    with cluster.database.session(read_only=True) as session:
        hashes = set(session.scalars(select(ArtifactRecord.sha256)))
    missing = [sha256 for sha256 in hashes if not cluster.store.exists(sha256)]
    assert missing == [], f"rows without a file: {missing}"


def _nothing_else_is_there(cluster: Cluster) -> None:
    """After a sweep that spares nothing for being young, every file has a row."""
    cluster.store.remove_abandoned_writes(0)
    sweep_blobs(cluster.database, cluster.store, min_age_seconds=0)
    with cluster.database.session(read_only=True) as session:
        orphans = [
            sha256 for sha256 in cluster.store.blobs() if not blobs.is_referenced(session, sha256)
        ]
    assert orphans == [], f"files without a row: {orphans}"
    kept = set(cluster.store.blobs())
    if cluster.bucket is not None:
        bucket = cluster.bucket
        keys = {key.rpartition("/")[2] for key in bucket.server.keys(bucket.name)}
        assert keys == kept, f"other objects: {keys - kept}"
        assert bucket.server.unfinished(bucket.name) == 0, "uploads that nobody ended"
        return
    paths = {cluster.store.path(sha256) for sha256 in kept}
    files = {path for path in cluster.artifacts.rglob("*") if path.is_file()}
    assert files == paths, f"temporary files: {files - paths}"


def resumed(cluster: Cluster) -> int:
    """How often a job was taken up again by another attempt."""
    with cluster.database.session(read_only=True) as session:
        attempts = session.scalars(select(JobRecord.attempt)).all()
    return sum(max(0, attempt - 1) for attempt in attempts)
