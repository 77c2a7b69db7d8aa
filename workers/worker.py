"""`python -m workers.worker --queues cpu[,gpu] --concurrency N`: a Celery worker.

Jobs run in processes of their own; the worker's threads only watch over them. On the first
SIGTERM or SIGINT the worker takes no further job, lets running ones go on for `--drain-seconds`,
then gives the unfinished back to the queue, where the next worker resumes them from their
checkpoints. At the second it gives them back at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

import structlog
from celery.signals import worker_ready

from persistence.database import database
from persistence.settings import Settings, settings
from workers.app import QUEUES, app
from workers.logs import configure_logs
from workers.presence import Presence
from workers.sandbox.choice import Containment, Uncontained, contain
from workers.sandbox.filesystem import ForeignFolder, check_apart, needed
from workers.scratch import sweep
from workers.tasks import NAME, drain

log = structlog.get_logger()

_DRAIN_SECONDS = 10.0
_PROBE_SECONDS = 120


def main() -> None:
    """Check the queues against the hardware, tidy up, and serve."""
    parser = argparse.ArgumentParser(prog="python -m workers.worker")
    parser.add_argument("--queues", default="cpu", help="`cpu`, `gpu` or `cpu,gpu`")
    parser.add_argument("--concurrency", type=int, default=1, help="jobs at a time")
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=_DRAIN_SECONDS,
        help="time running jobs get to finish after a SIGTERM",
    )
    arguments = parser.parse_args()
    configure_logs()
    config = settings()
    queues = arguments.queues.split(",")
    problem = find_problem(config, queues, arguments.concurrency)
    if problem is not None:
        parser.exit(2, f"workers.worker: {problem}\n")
    try:
        containment = find_containment(config, queues)
    except (Uncontained, ForeignFolder) as fault:
        parser.exit(2, f"workers.worker: {fault}\n")
    swept = sweep(config.resolved_scratch_dir)
    if swept:
        log.info("removed scratch folders of dead workers", folders=swept)

    ready = threading.Event()

    def announce(**_: Any) -> None:
        if not ready.is_set():  # not again after each reconnection
            take_signals(arguments.drain_seconds)
            ready.set()
        log.info(
            "worker ready",
            queues=queues,
            concurrency=arguments.concurrency,
            sandbox=containment.level,
        )

    worker_ready.connect(announce, weak=False)
    with Presence(database(), NAME, queues, containment.as_json()):
        app.worker_main(
            [
                "worker",
                "--queues=" + ",".join(QUEUES[name] for name in queues),
                f"--concurrency={arguments.concurrency}",
                "--pool=threads",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
                "--loglevel=INFO",
                f"--hostname=secateur-{os.getpid()}@%h",
            ]
        )


def find_containment(config: Settings, queues: list[str]) -> Containment:
    """What the runners of this worker are contained by; says so when it is not the best.

    Raises:
        Uncontained: the settings want more than the machine gives.
        ForeignFolder: a data folder lies where runners read.
    """
    containment = contain(config.sandbox)
    if containment.level != "limits":
        read = needed((), gpu="gpu" in queues, further=config.sandbox_read_paths)
        check_apart([config.data_dir, config.resolved_artifact_dir], read)
        log.info("runners are contained", level=containment.level, refused=containment.refused)
    else:
        log.warning(
            "RUNNERS ARE NOT CONTAINED: uploaded programs have the rights of this user",
            reasons=containment.missing,
        )
    if containment.level == "kernel":
        log.warning("runners are contained without namespaces", reasons=containment.missing)
    return containment


def take_signals(drain_seconds: float) -> None:
    """Drain at the first signal, give jobs back at once at the second; the worker ends by itself
    when they are.

    Celery's own handler of a second signal waits inside itself for the jobs to end, which nobody
    could tell then, and abandons them.
    """
    warm: Any = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        first = not drain.requested
        drain.request(drain_seconds)
        if first:
            warm(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, stop)


def find_problem(config: Settings, queues: list[str], concurrency: int) -> str | None:
    """Why this worker cannot serve these queues, or None."""
    unknown = sorted(set(queues) - set(QUEUES))
    if unknown:
        return f"no such queue: {', '.join(unknown)}; there are {', '.join(QUEUES)}"
    if "gpu" not in queues:
        return None
    if config.gpu_device is None:
        return "the gpu queue needs SECATEUR_GPU_DEVICE, the one device this worker pins"
    if concurrency != 1:
        return "a GPU worker runs one job at a time; start one worker per device"
    return probe_gpu(config.gpu_device)


def probe_gpu(device: str) -> str | None:
    """Why torch cannot use the device, or None; asked in a process of its own."""
    question = (
        "import torch, sys; "
        "sys.exit(0 if torch.cuda.is_available() else f'torch {torch.__version__} sees no GPU')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", question],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": device},
        capture_output=True,
        text=True,
        timeout=_PROBE_SECONDS,
        check=False,
    )
    if answer.returncode == 0:
        return None
    reason = (answer.stderr.strip().splitlines() or ["torch did not start"])[-1]
    return (
        f"SECATEUR_GPU_DEVICE={device} cannot be used: {reason}; "
        "check the driver, the container's GPU access and that torch is a CUDA build, "
        "or serve the cpu queue only"
    )


if __name__ == "__main__":
    main()
