"""The job's side of a training step in several processes.

torchrun (`torch.distributed.run`) starts the processes on this machine, ends all when one fails,
and starts them anew a few times; they then go on from the newest checkpoint. Faults of the job
(a diverging loss, a dataset that does not fit) are not tried again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.errors import EngineError
from engine.job import JobInput
from engine.pipeline.distributed.exchange import RESULT, Reader, raise_error, read_tensors
from engine.pipeline.distributed.plan import Plan
from engine.torchscript.program import Program
from engine.training.recording import Recording
from engine.training.run import Trained, TrainingObserver, TrainingRun
from engine.training.state import copy_tensors

_RESTARTS = 2
_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 10.0
_LAST_LINES = 20


class ProcessesFailed(EngineError):
    """The processes that train together ended without a result."""

    type = "processes-failed"
    retryable = True


def train_together(
    begun: Program,
    run: TrainingRun,
    observer: TrainingObserver,
    *,
    job: JobInput,
    position: int,
) -> Trained:
    """What `engine.training.finetune.train` gives, by as many processes as the recipe says.

    Args:
        begun: program that the run begins with.
        run: that every process will make for itself.
        observer: hears the first process.
        job: with a checkpoint that stands where the run begins or goes on.
        position: of the step among those of the job.

    Raises:
        EngineError: of any of the processes; `ProcessesFailed` where they died without one.
    """
    with TemporaryDirectory(dir=job.workdir, prefix="together-") as name:
        folder = Path(name)
        plan = Plan(replace(job, workdir=folder, threads=_threads(job)), position)
        reader, log = Reader(folder, observer), folder / "log"
        with _launched(plan, log) as launcher:
            while launcher.poll() is None:
                reader.look()
                time.sleep(_LOOK_SECONDS)
        reader.look()
        raise_error(folder)
        if launcher.returncode != 0 or not (folder / RESULT).exists():
            raise _failed(launcher.returncode, log, run.field)
        result = read_tensors(folder / RESULT)
    program = begun.twin()
    copy_tensors(result["tensors"], program.attributes())
    if run.sparsity is not None:
        run.sparsity.recall(result["memory"], run.device)
    recording = Recording(run, observer)
    recording.recall(result["recording"])
    return Trained(
        program=program,
        masks=result["masks"],
        stopped=result["stopped"],
        recording=recording,
        remarks=tuple(result["remarks"]),
        optimizer=result["optimizer"],
        diverged=result["diverged"],
        latents=result["latents"],
    )


def _threads(job: JobInput) -> int:
    """Of each process: they share what the job has."""
    return max(job.threads // job.recipe.devices, 1)


@contextmanager
def _launched(plan: Plan, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = plan.write()
    here = "127.0.0.1"
    command = [
        *(sys.executable, "-P", "-s", "-W", "ignore", "-m", "torch.distributed.run"),
        *("--nnodes", "1", "--nproc-per-node", str(plan.job.recipe.devices)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{here}:0", "--local-addr", here),
        *("--max-restarts", str(_RESTARTS), "--monitor-interval", str(_LOOK_SECONDS)),
        *("-m", "engine.pipeline.distributed.member", str(file)),
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(plan.job.threads),
        # Nothing leaves the machine.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": here,
    }
    with log.open("wb") as output:
        # In the job's own process group: who ends the job ends the launcher, and the processes
        # end with the launcher.
        launcher = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    try:
        yield launcher
    finally:
        _end(launcher)


def _end(launcher: subprocess.Popen[bytes]) -> None:
    if launcher.poll() is None:
        launcher.send_signal(signal.SIGTERM)
    try:
        launcher.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()


def _failed(status: int, log: Path, field: str) -> ProcessesFailed:
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    sys.stderr.write("\n".join(lines) + "\n")
    return ProcessesFailed(
        f"the processes that train together ended with status {status}, {_RESTARTS} restarts "
        "included, and without a result",
        hint="the job's log has their last lines; retry, with fewer `devices` where memory is "
        "short",
        where=field,
    )
