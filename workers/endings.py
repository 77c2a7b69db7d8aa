"""How an attempt ends, and what the user is told when it ends badly."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Literal

from workers.messages import Failure


@dataclass(frozen=True)
class Ending:
    """The end of one attempt.

    Attributes:
        outcome: `released` gives the job back to the queue; `lost` writes nothing.
        error: of a failed or expired job, `{type, title, hint, where, retryable}`.
        result: of a succeeded one, its short result.
        keeps_artifacts: whether finished files are kept; a job that broke a constraint of its
            recipe fails and keeps them.
        reason: why a job is given back.
    """

    outcome: Literal["succeeded", "failed", "canceled", "expired", "released", "lost"]
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    keeps_artifacts: bool = False
    reason: str = "the worker stops"


LOST = Ending("lost")
CANCELED = Ending("canceled")
RELEASED = Ending("released")
NO_ROOM = Ending("released", reason="the disk of running jobs is full")
STORE_AWAY = Ending("released", reason="the artifact store does not answer")


def failed(type: str, title: str, hint: str, *, where: str = "", retryable: bool = False) -> Ending:
    """The job failed outside the engine."""
    error = {"type": type, "title": title, "hint": hint, "where": where, "retryable": retryable}
    return Ending("failed", error=error)


INTERNAL = failed(
    "internal-error",
    "The worker failed while it looked after the job.",
    "Submit the job again; if it fails the same way, report it with the job's id.",
    retryable=True,
)


DISK_FULL = failed(
    "disk-full",
    "The runner ended while the worker's disk was full.",
    "Make room on the worker's disk (SECATEUR_SCRATCH_DIR); the job can then be taken up from its "
    "last checkpoint.",
    retryable=True,
)


def out_of_memory(limit: int) -> Ending:
    """All processes of the runner together hold too much."""
    return failed(
        "out-of-memory",
        f"The job's processes held more than the {limit} bytes of memory a runner may have.",
        "Try a smaller batch size or fewer samples, or raise SECATEUR_RUNNER_MEMORY_BYTES.",
        retryable=True,
    )


def too_many_processes(limit: int) -> Ending:
    """The runner and what it started have too many threads."""
    return failed(
        "too-many-processes",
        f"The job had more than the {limit} processes and threads a runner may have.",
        "Remove from the model whatever starts them without end, or raise "
        "SECATEUR_RUNNER_PROCESSES.",
    )


def scratch_full(limit: int) -> Ending:
    """The scratch folder grew too large."""
    return failed(
        "scratch-full",
        f"The job's files took more than the {limit} bytes of scratch space a job may have.",
        "Export fewer formats or use a smaller dataset, or raise SECATEUR_RUNNER_SCRATCH_BYTES.",
    )


_NEEDS_NAMESPACES = failed(
    "sandbox-insufficient",
    "Training in several processes needs a network of its own, and this worker has none to give.",
    "Submit the job with `devices: 1`, or install bubblewrap and allow user namespaces on the "
    "worker's machine (docs/deployment.md).",
    where="recipe.devices",
)


def lacking(level: str, *, loopback: bool) -> Ending | None:
    """The end of a job that its worker's level of containment cannot serve, or None."""
    return _NEEDS_NAMESPACES if loopback and level == "kernel" else None


def not_contained(reason: str) -> Ending:
    """The sandbox did not come about, and nothing of the job was run."""
    return failed(
        "sandbox-failed",
        f"The sandbox of the job could not be set up: {reason[:500]}",
        "Nothing of the job was run. The end of its log may say more; try it again, or look at "
        "what `python -m workers.worker` says at its start on that machine.",
        retryable=True,
    )


def misbehaved(fault: str) -> Ending:
    """The runner said something it would never say by itself."""
    return failed(
        "runner-misbehaved",
        f"The runner sent something that is not part of the job protocol: {fault[:500]}",
        "The model's own code wrote to descriptors or files that are not its own; "
        "remove from the model whatever reads or writes files.",
    )


_OF_SIGNALS = {
    -signal.SIGXCPU: failed(
        "cpu-time-exceeded",
        "The job used more CPU time than a runner may.",
        "Train for fewer epochs or on fewer samples, or raise SECATEUR_RUNNER_CPU_SECONDS.",
    ),
    -signal.SIGXFSZ: failed(
        "file-too-large",
        "The job wrote a file that is larger than a runner may write.",
        "Make the model or the export smaller, or raise SECATEUR_RUNNER_FILE_BYTES.",
    ),
    -signal.SIGKILL: failed(
        "runner-killed",
        "The runner was killed (SIGKILL), most likely because memory ran out.",
        "Try a smaller batch size, or a machine with more memory.",
        retryable=True,
    ),
}


def from_exit(code: int, result: dict[str, Any] | None, failure: Failure | None) -> Ending:
    """The ending that an exit status and the last messages amount to.

    Args:
        code: exit status, negative for the signal that ended the runner.
        result: what it sent as its result.
        failure: what it sent as its error.
    """
    if failure is not None:
        return Ending("failed", error=failure.as_error(), keeps_artifacts=True)
    if code == 0 and result is not None:
        return Ending("succeeded", result=result, keeps_artifacts=True)
    if code == 0:
        return misbehaved("it ended without a result")
    if code in _OF_SIGNALS:
        return _OF_SIGNALS[code]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return failed(
            "runner-crashed",
            f"The runner crashed ({name}).",
            "The model or one of its operators brought down the process; the end of the job's "
            "log may say where.",
        )
    return failed(
        "runner-crashed",
        f"The runner ended with status {code} and no explanation.",
        "The end of the job's log may say why.",
    )
