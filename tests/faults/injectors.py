"""The faults. Each does one harm to a running installation and lets it recover; each returns what
it did, in words that are counted, or None when there was nobody to harm."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery
from sqlalchemy import select

from persistence.records import JobRecord
from persistence.settings import Settings
from tests.faults import servers
from tests.faults.cluster import LEASE_SECONDS, Cluster, until
from tests.s3_fault_proxy import Fault as S3Fault
from workers.app import QUEUES, RUN_JOB, create_app

Fault = Callable[[Cluster, random.Random], str | None]


def _gone(pids: list[int]) -> bool:
    return not any(_lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def kill_runner(cluster: Cluster, chance: random.Random) -> str | None:
    """kill -9 of a process that computes."""
    runners = cluster.runners()
    if not runners:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(runners), signal.SIGKILL)
        return "runner killed"
    return None


def kill_worker(cluster: Cluster, chance: random.Random) -> str | None:
    """kill -9 of a worker, alone or with its group; its runner must not outlive it."""
    worker = chance.choice(cluster.workers)
    runners = worker.runners()
    group = chance.random() < 0.5
    worker.kill(group=group)
    until(lambda: _gone(runners), f"runners {runners} die with their worker", 15)
    worker.start()
    return "worker group killed" if group else "worker killed"


def kill_part(name: str) -> Fault:
    """kill -9 of the API, the dispatcher or the reconciler."""

    def kill(cluster: Cluster, chance: random.Random) -> str | None:
        part = cluster.parts[name]
        part.kill()
        time.sleep(chance.uniform(0, 0.5))
        part.start()
        return f"{name} killed"

    return kill


def restart_broker(cluster: Cluster, chance: random.Random) -> str | None:
    """The broker stops, or is killed, and comes back at once."""
    if chance.random() < 0.5:
        cluster.broker.kill()
        cluster.broker.start()
        return f"{cluster.broker.name} killed"
    cluster.broker.stop()
    cluster.broker.start()
    return f"{cluster.broker.name} restarted"


def broker_away(cluster: Cluster, chance: random.Random) -> str | None:
    """The broker is away for some seconds."""
    cluster.broker.stop()
    time.sleep(chance.uniform(3, 8))
    cluster.broker.start()
    return f"{cluster.broker.name} away for seconds"


def empty_broker(cluster: Cluster, chance: random.Random) -> str | None:
    """Every waiting message is lost."""
    servers.empty(cluster.broker)
    return f"{cluster.broker.name} emptied"


def restart_database(cluster: Cluster, chance: random.Random) -> str | None:
    """A fast restart (every transaction is aborted), an immediate one, or kill -9 of the server
    and everything it started."""
    how = chance.choice(["fast", "immediate", "killed"])
    if how == "killed":
        cluster.postgres.kill()
    else:
        cluster.postgres.stop(signal.SIGINT if how == "fast" else signal.SIGQUIT)
    time.sleep(chance.uniform(0, 2))
    cluster.postgres.start()
    return f"PostgreSQL {how}"


def pause_worker(cluster: Cluster, chance: random.Random) -> str | None:
    """A worker sleeps past its lease while its runner goes on; another takes the job over, and the
    sleeper wakes."""
    busy = [worker for worker in cluster.workers if worker.runners()]
    if not busy:
        return None
    worker = chance.choice(busy)
    worker.signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + chance.uniform(2, 6))
    worker.signal(signal.SIGCONT)
    return "worker paused past its lease"


def flood(cluster: Cluster, chance: random.Random) -> str | None:
    """Messages twice, out of order, of ended jobs, and of none."""
    with cluster.database.session(read_only=True) as session:
        jobs = list(session.scalars(select(JobRecord.id)))
    messages = [*jobs[-20:], *jobs[-20:], "job_unknown", "not an id", ""]
    chance.shuffle(messages)
    celery: Celery = create_app(
        Settings(data_dir=cluster.folder, broker_url=cluster.broker.url)  # type: ignore[arg-type]
    )
    with celery.connection_for_write() as connection:
        for job_id in messages:
            celery.send_task(RUN_JOB, args=(job_id,), queue=QUEUES["cpu"], connection=connection)
    return "messages doubled and shuffled"


def jump_clock(cluster: Cluster, chance: random.Random) -> str | None:
    """The clocks of one worker jump by a day, to and fro; leases are counted by the database."""
    worker = chance.choice(cluster.workers)
    days = chance.choice(["+1d", "-1d", "+0d"])
    file = Path(worker.environment["FAKETIME_TIMESTAMP_FILE"])
    temporary = file.with_suffix(".new")
    temporary.write_text(days + "\n")
    temporary.replace(file)
    return f"worker clock at {days}"


def fill_disk(cluster: Cluster, chance: random.Random) -> str | None:
    """The disk of artifacts and running jobs is full for some seconds, while jobs run."""
    if cluster.disk is None or not cluster.runners():
        return None
    cluster.disk.fill()
    time.sleep(chance.uniform(1, 5))
    cluster.disk.empty()
    return "disk full for seconds"


def fail_s3(cluster: Cluster, chance: random.Random) -> str | None:
    """The next requests to the object store go wrong in one of the ways that they can."""
    if cluster.bucket is None:
        return None
    times = chance.randint(2, 8)
    fault = chance.choice(
        [
            S3Fault("status", times=times, status=500, code="InternalError"),
            S3Fault("status", times=times, status=503),
            S3Fault("reset", times=times),
            S3Fault("lost", times=times, method="PUT"),
            S3Fault("truncate", times=times, method="GET", after=chance.randrange(2000)),
            S3Fault("slow", times=times, method="GET", seconds=chance.uniform(0.1, 0.5)),
            S3Fault("hang", times=2, seconds=chance.uniform(1, 4)),
            S3Fault("corrupt", times=times, method="GET"),
        ]
    )
    cluster.bucket.proxy.add(fault)
    return f"S3: {fault.kind}" + (f" {fault.status}" if fault.kind == "status" else "")
