"""Jobs: what is asked for, how it stands, what it made and told."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from secateur.recipe import Recipe
from secateur.recipe_exports import OtherFormat
from secateur.recipe_granularity import without_default
from secateur.resources.base import Resource

JobType = Literal["compress", "inspect", "plan", "score", "search"]
JobStatus = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "expired"})

Device = Literal["auto", "cpu", "cuda"]
ProducedKind = Literal[
    "model", "report_json", "report_html", "recipe", "masks", "scores", "plot", OtherFormat
]
"""What a job leaves when it has ended; exports by their format."""
ArtifactKind = Literal[ProducedKind, "checkpoint", "training_state"]

PRIORITY_MAX = 100
SECONDS_MAX = 10 * 366 * 24 * 3600
"""Longest time that a job may be given to wait or run."""


class JobError(Resource):
    """Why a job failed."""

    type: str
    """A stable name such as `nothing-pruned`."""
    title: str
    hint: str = ""
    where: str = ""
    """The recipe field, layer, tensor or file at fault."""
    retryable: bool = False


class Progress(Resource):
    """How far the current stage is."""

    current: int
    total: int
    unit: str
    eta_seconds: float | None = None


class JobLimits(BaseModel):
    """How long a job may wait and run. Left out, there is no limit but the server's on running
    (`max_job_seconds` of `/v1/limits`). Of a search, waiting and running are each trial's."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    deadline: AwareDatetime | None = None
    """RFC 3339, in the future. A job that has not ended by then is `expired`."""
    max_wait_seconds: int | None = Field(default=None, ge=1, le=SECONDS_MAX)
    """A job that has waited for workers so long, all waits together, is `expired`."""
    max_run_seconds: int | None = Field(default=None, ge=1, le=SECONDS_MAX)
    """A job that has run so long, all attempts together, fails with `job-timeout`."""


class JobRetry(JobLimits):
    """Body of `POST /v1/jobs/{id}/retry`, all of it optional: what is left out is taken over from
    the job, but for a deadline that has passed."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    priority: int | None = Field(default=None, ge=-PRIORITY_MAX, le=PRIORITY_MAX)
    """Among the tenant's own jobs; the highest goes first."""


class JobCreate(JobLimits):
    """Body of `POST /v1/jobs`."""

    model_id: str
    dataset_id: str | None = None
    initial_model_id: str | None = None
    """Another upload of the same model with the weights that training began from, for schedules
    that go back to them (`imp`, `imp_rewind`, `supermask`). Left out, the job trains `model_id`
    itself and keeps its weights of step 0 or k."""
    loss_model_id: str | None = None
    """An upload that is no model but a loss, `(outputs, targets) -> scalar`, for
    `objective.loss: module`."""
    metric_model_id: str | None = None
    """The same of a metric, for `objective.metric: module`."""
    recipe: Recipe
    type: Literal["compress", "score", "search", "plan"] = Field(
        default=None, validate_default=True, json_schema_extra=without_default
    )
    """Left out, the recipe says: `score` where its stages only score, `search` where it has a
    `search`, `compress` otherwise."""
    device: Device = "auto"
    name: str = Field(default="", max_length=200)
    metadata: dict[str, str] = Field(default={}, max_length=32)
    priority: int = Field(default=0, ge=-PRIORITY_MAX, le=PRIORITY_MAX)
    """Among the tenant's own jobs; the highest goes first, then the oldest."""

    @field_validator("type", mode="before")
    @classmethod
    def _type_of_the_recipe(cls, type: Any, info: ValidationInfo) -> Any:
        if type is not None:
            return type
        recipe = info.data.get("recipe")
        return "compress" if recipe is None else _type_of(recipe) or "compress"

    @field_validator("type")
    @classmethod
    def _type_fits_the_recipe(cls, type: str, info: ValidationInfo) -> str:
        recipe = info.data.get("recipe")
        only = None if recipe is None else _type_of(recipe)
        if recipe is None or type == only or (only is None and type in ("compress", "plan")):
            return type
        if only == "search":
            raise ValueError(
                f"`type: {type}` carries out one recipe, and this one has a `search`; leave `type` "
                "out, or take the search out of the recipe"
            )
        if type == "search":
            raise ValueError("`type: search` needs a recipe with a `search`; leave `type` out")
        raise ValueError(
            f"`type: {type}` needs a recipe that prunes, and this one only scores; leave `type` out"
            if only == "score"
            else "`type: score` needs a recipe whose stages are all `stage: score`; leave `type` "
            "out, or send the scan as a recipe of its own"
        )


def _type_of(recipe: Recipe) -> str | None:
    """The one type of job that the recipe can make; None where there are several."""
    if recipe.search is not None:
        return "search"
    return "score" if recipe.scans else None


class Artifact(Resource):
    """A file a job produced."""

    id: str
    job_id: str
    kind: ArtifactKind
    name: str
    media_type: str
    sha256: str
    bytes: int
    created_at: datetime


class Trial(Resource):
    """What a job tries on behalf of a search."""

    number: int
    """From 0, in the order in which the search started them."""
    parameters: dict[str, Any]
    """Its values, by the paths of the search's space."""
    state: Literal["succeeded", "infeasible", "failed", "canceled"] | None
    """What the search made of its end; null until then."""
    values: dict[str, float]
    """What the search compares: `accuracy`, `loss`, `macs`, `params`, ...; empty until then."""


class Job(Resource):
    """A job. `status` tells where it is in its life, `stage` what it is doing."""

    id: str
    type: JobType
    status: JobStatus
    name: str
    model_id: str
    dataset_id: str | None
    initial_model_id: str | None = None
    """Where the initial weights come from; null where the job keeps its own."""
    parent_id: str | None = None
    """The search that this job is a trial of."""
    trial: Trial | None = None
    """Null for jobs that belong to no search."""
    loss_model_id: str | None = None
    """The uploaded loss; null where the loss is a built-in one."""
    metric_model_id: str | None = None
    """The uploaded metric; null where there is none."""
    recipe: dict[str, Any] | None
    device: Device
    queue: Literal["cpu", "gpu"]
    stage: str | None
    progress: Progress | None
    attempt: int
    queue_position: int | None = None
    """Jobs that workers would take before this one if they took all that wait now; an estimate, for
    nobody knows how long jobs run or who comes meanwhile. Null unless it waits for a worker."""
    priority: int = 0
    deadline: datetime | None = None
    max_wait_seconds: int | None = None
    max_run_seconds: int | None = None
    waited_seconds: float = 0.0
    """How long it waited for workers, all waits that have ended."""
    ran_seconds: float = 0.0
    """How long it ran, all attempts that have ended."""
    clock_started_at: datetime | None = None
    """When the present wait or attempt began; null when the job has ended."""
    retry_of_id: str | None = None
    """The ended job that this one tries again."""
    error: JobError | None
    result: dict[str, Any] | None = None
    """Short result: the verdict of a compress job, the plan of a plan job, the layers of a score
    job, most sensitive first, the chosen trial and the front of a search."""
    metadata: dict[str, str]
    artifacts: list[Artifact] = []  # noqa: RUF012 - pydantic copies it
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Event(Resource):
    """Something that happened to a job. `seq` counts from 1 within the job."""

    seq: int
    type: str
    """`queued`, `started`, `stage_started`, `progress`, `metric`, `log`, `stage_finished`,
    `checkpoint`, `lease_expired`, `requeued`, `retry`, `succeeded`, `failed`, `canceled`,
    `expired`, ..."""
    data: dict[str, Any]
    created_at: datetime


class Metric(Resource):
    """One measured value during a job."""

    seq: int
    name: str
    """`train/loss`, `validation/loss`, `lr`, and by the metrics of the objective
    `train/accuracy`, `validation/accuracy`, `validation/perplexity` and so on; with
    distillation `train/distillation` and `train/agreement`; ... At the end of an epoch, whose
    number is `step`. While training goes on also `live/loss`, `live/lr`, `live/gradient_norm`,
    `live/samples_per_second` and `live/memory_bytes`, with optimiser steps in `step`."""
    value: float
    step: int
    stage: str
    created_at: datetime
