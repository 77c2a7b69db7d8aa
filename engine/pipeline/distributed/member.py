"""One of the processes that train together: `python -m engine.pipeline.distributed.member FOLDER`.

It reads the job anew, from the same files and the same checkpoint as its fellows and the job
itself, and so comes to the same run; then it takes its part of every batch. Started again after a
failure it goes on from the newest checkpoint of the job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from engine.errors import EngineError
from engine.parent_death import die_with_parent
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.device_memory import out_of_memory_explained
from engine.pipeline.distributed.exchange import (
    ERROR,
    RESULT,
    Silent,
    Teller,
    leave_error,
    write_tensors,
)
from engine.pipeline.distributed.plan import Plan
from engine.pipeline.pace import CheckpointPace
from engine.pipeline.report import fingerprint_of
from engine.pipeline.setup import prepare
from engine.pipeline.steps import (
    PruneStep,
    QuantizeStep,
    RecalibrateStep,
    TournamentStep,
    steps_of,
)
from engine.pipeline.tickets import begin_stage
from engine.pipeline.training import begin_training
from engine.training.finetune import train
from engine.training.run import Trained, TrainingObserver
from engine.training.world import Processes

_PATIENCE = timedelta(minutes=30)
"""Longer than the first process takes to validate while the others wait."""


def main(plan: Path) -> int:
    """Train; 0 when it went well, 1 when the error is in its file, anything else otherwise."""
    die_with_parent(os.getppid())
    folder = plan.parent
    if (folder / ERROR).exists():
        # The launcher starts all processes anew when one fails; a fault of the job stays one.
        return 0
    try:
        with out_of_memory_explained():
            _train(Plan.read(plan), folder)
    except EngineError as error:
        if _fellow_is_lost(error):
            raise
        leave_error(error, folder)
        return 1
    return 0


def _fellow_is_lost(error: EngineError) -> bool:
    """Whether it is the connection that failed, in whatever operator was waiting for it.

    That says nothing of the job: the process at the other end is gone, for a reason of its own.
    """
    cause = error.__cause__
    text = str(cause)
    return isinstance(cause, distributed.DistError) or "gloo" in text or "NCCL" in text


def _train(plan: Plan, folder: Path) -> None:
    job = plan.job
    rank = int(os.environ["LOCAL_RANK"])
    if job.device != "cpu":
        job = replace(job, device=f"cuda:{rank}")
    bench = prepare(job)
    if job.checkpoint is None:
        raise ValueError("processes that train together begin with a checkpoint")
    state = load_checkpoint(job.checkpoint, bench.original, fingerprint=fingerprint_of(job))
    step = steps_of(bench.recipe, initial_given=job.initial is not None)[plan.position]
    if isinstance(step, PruneStep | RecalibrateStep | TournamentStep | QuantizeStep):
        raise TypeError(f"`{step.label}` is no training")
    begin_stage(bench, state, step)
    begun, run = begin_training(bench, state, step, _Deaf())
    first = rank == 0
    pace = CheckpointPace(bench.recipe.checkpoint)
    observer: TrainingObserver = Teller(folder, pace) if first else Silent()
    with _process_group(job.device):
        world = Processes.here(job.device)
        run = replace(run, world=world, pace=pace if first else None)
        # The job may have written a newer checkpoint since another process read it.
        trained = train(begun, run, observer, resume=world.told(lambda: state.training))
        memory = {} if run.sparsity is None else run.sparsity.memory()
        result = _result(trained, memory)
        if first:
            write_tensors(result, folder / RESULT)
        # Nobody leaves while another still needs the connection.
        distributed.barrier()


@contextmanager
def _process_group(device: str) -> Iterator[None]:
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _result(trained: Trained, memory: object) -> dict[str, object]:
    return {
        "tensors": {name: held.cpu() for name, held in trained.program.attributes().items()},
        "masks": trained.masks,
        "stopped": trained.stopped,
        "diverged": trained.diverged,
        "remarks": list(trained.remarks),
        "optimizer": trained.optimizer,
        "latents": trained.latents,
        "memory": memory,
        "recording": None if trained.recording is None else trained.recording.to_plain(),
    }


class _Deaf:
    """The job has told its listener what these processes would tell again."""

    def log(self, message: str, **data: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
