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


def misbehaved(fault: str) -> Ending:
    """The runner said something it would never say by itself."""
    return failed(
        "runner-misbehaved",
        f"The runner sent something that is not part of the job protocol: {fault[:500]}",
        "The model's own code wrote to descriptors or files that are not its own; "
        "remove from the model whatever reads or writes files.",
    )


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
    if code == -signal.SIGKILL:
        return failed(
            "runner-killed",
            "The runner was killed (SIGKILL), most likely because memory ran out.",
            "Try a smaller batch size, or a machine with more memory.",
            retryable=True,
        )
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
