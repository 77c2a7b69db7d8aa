"""What a runner needs on disk: copies of the uploads of a job and of its last checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from secateur.recipe import Recipe
from secateur.resources import JobType

from persistence.artifact_store import ArtifactStore, BlobDamaged, fetch_file
from persistence.database import Database
from persistence.job_queue import Claim, append_event
from persistence.records import DatasetRecord, JobRecord, ModelRecord
from persistence.settings import Settings
from workers import endings
from workers.endings import Ending
from workers.instructions import Instructions
from workers.scratch import Scratch

TRAINING_STATE = "checkpoint.training.pt"
"""Where the engine looks for it, beside a file named `checkpoint`; it is not imported here."""

_GONE = "the file of the last checkpoint is not in the artifact store: the job starts over"
_JOB_TYPE: TypeAdapter[JobType] = TypeAdapter(JobType)


class NotStarted(Exception):
    """The job cannot start, or shall not; `ending` says why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(str(ending.error))
        self.ending = ending


def prepare(
    database: Database,
    store: ArtifactStore,
    settings: Settings,
    held: Claim,
    scratch: Scratch,
    *,
    stop: Callable[[], Ending | None] = lambda: None,
) -> Instructions:
    """Copy the inputs into the scratch folder and write `job.json`.

    May be called again after the store cut it short.

    Args:
        database: where the job is.
        store: where its files are.
        settings: device and limits of the runner.
        held: the claim.
        scratch: where they go.
        stop: asked before every file whether the attempt must end, and how.

    Raises:
        NotStarted: a file is gone from the store, or the job needs a device this worker has not,
            or the attempt must end.
        StoreUnavailable: the store does not answer.
    """
    for left in scratch.input.iterdir():
        left.unlink()  # by a try that the store cut short
    with database.session(read_only=True) as session:
        job = session.get_one(JobRecord, held.job_id)
        model = session.get_one(ModelRecord, job.model_id)
        dataset = None if job.dataset_id is None else session.get_one(DatasetRecord, job.dataset_id)
        beside = {
            role: session.get_one(ModelRecord, model_id)
            for role, model_id in (
                ("initial", job.initial_model_id),
                ("loss", job.loss_model_id),
                ("metric", job.metric_model_id),
            )
            if model_id is not None
        }
        kept = {a.kind: a.sha256 for a in job.artifacts}
    if job.device == "cuda" and settings.gpu_device is None:
        raise NotStarted(
            endings.failed(
                "device-unavailable",
                "The job asks for `device: cuda`, but its worker has no GPU.",
                "Submit it with `device: cpu` or `device: auto`, or start a worker of the gpu "
                "queue with SECATEUR_GPU_DEVICE set.",
                where="device",
            )
        )

    def fetch(sha256: str, target: Path, what: str, where: str) -> None:
        ending = stop()
        if ending is not None:
            raise NotStarted(ending)
        _fetch(store, sha256, target, what, where)

    model_file = scratch.input / "model.pt"
    fetch(model.sha256, model_file, f"model {model.id}", "model_id")
    dataset_file = None
    if dataset is not None:
        dataset_file = scratch.input / f"dataset.{dataset.format}"
        fetch(dataset.sha256, dataset_file, f"dataset {dataset.id}", "dataset_id")
    files = {role: scratch.input / f"{role}.pt" for role in beside}
    for role, upload in beside.items():
        fetch(upload.sha256, files[role], f"model {upload.id}", f"{role}_model_id")
    checkpoint_file = None
    # a checkpoint saves time and is not needed: without its file the job starts over
    try:
        if "checkpoint" in kept:
            fetch_file(store, kept["checkpoint"], scratch.input / "checkpoint")
            checkpoint_file = scratch.input / "checkpoint"
            if "training_state" in kept:
                fetch_file(store, kept["training_state"], scratch.input / TRAINING_STATE)
    except (FileNotFoundError, BlobDamaged):
        if checkpoint_file is None:
            with database.session() as session:
                append_event(session, held, "log", {"message": _GONE, "data": {}})
    use_cuda = settings.gpu_device is not None and job.device != "cpu"
    instructions = Instructions(
        type=_job_type(job.type),
        model=model_file,
        dataset=dataset_file,
        initial=files.get("initial"),
        loss=files.get("loss"),
        metric=files.get("metric"),
        checkpoint=checkpoint_file,
        recipe=_recipe(job),
        workdir=scratch.work,
        device="cuda" if use_cuda else "cpu",
        threads=settings.runner_threads or len(os.sched_getaffinity(0)),
    )
    scratch.job_file.write_text(instructions.model_dump_json())
    return instructions


def _fetch(store: ArtifactStore, sha256: str, target: Path, what: str, where: str) -> None:
    try:
        fetch_file(store, sha256, target)
    except FileNotFoundError as error:
        raise NotStarted(
            endings.failed(
                "input-missing",
                f"The file of {what} is not in the artifact store.",
                "Upload it again and submit the job again.",
                where=where,
            )
        ) from error
    except BlobDamaged as error:
        raise NotStarted(
            endings.failed(
                "input-damaged",
                f"The artifact store holds other bytes than the file of {what} had.",
                "Upload it again and submit the job again; tell the operator that the store is "
                "damaged.",
                where=where,
            )
        ) from error


def _job_type(name: str) -> JobType:
    return _JOB_TYPE.validate_python(name)


def _recipe(job: JobRecord) -> Recipe | None:
    if job.recipe is None:
        return None
    try:
        return Recipe.model_validate(job.recipe)
    except ValidationError as error:
        # an upgrade of the service may refuse what an older one accepted
        first = error.errors(include_url=False)[0]
        where = ".".join(["recipe", *(str(part) for part in first["loc"])])
        raise NotStarted(
            endings.failed(
                "recipe-invalid",
                f"The recipe is not valid: {first['msg']}",
                "Correct the field and submit the job again.",
                where=where,
            )
        ) from error
