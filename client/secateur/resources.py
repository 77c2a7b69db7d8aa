"""What the API returns: models, datasets, jobs, events, metrics, artifacts, methods, limits.

Identifiers are prefixed and sort by creation time (`mdl_`, `dst_`, `job_`, `art_`, `key_`);
times are RFC 3339 in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from secateur.recipe import Recipe
from secateur.recipe_exports import OtherFormat
from secateur.recipe_granularity import without_default

JobType = Literal["compress", "inspect", "plan", "score", "search"]
JobStatus = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "expired"})
ModelStatus = Literal["uploaded", "ready", "rejected"]
UploadKind = Literal["model", "dataset"]
UploadStatus = Literal["open", "completing", "completed", "refused", "aborted"]
MAX_PARTS = 10_000
"""Of one upload."""
Device = Literal["auto", "cpu", "cuda"]
ProducedKind = Literal[
    "model", "report_json", "report_html", "recipe", "masks", "scores", "plot", OtherFormat
]
"""What a job leaves when it has ended; exports by their format."""
ArtifactKind = Literal[ProducedKind, "checkpoint", "training_state"]

PRIORITY_MAX = 100
SECONDS_MAX = 10 * 366 * 24 * 3600
"""Longest time that a job may be given to wait or run."""

T = TypeVar("T")


class Resource(BaseModel):
    """Base of everything the API returns."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class Page(Resource, Generic[T]):
    """One page of a list. Pass `next_cursor` as `?cursor=` to get the next."""

    data: list[T]
    next_cursor: str | None = None
    has_more: bool = False


class Problem(Resource):
    """An error, RFC 9457 problem+json, with what to do about it in `hint`."""

    type: str
    """A stable URI reference such as `/problems/recipe-invalid`."""
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    instance: str = ""
    errors: list[FieldProblem] = []


class FieldProblem(Resource):
    """One wrong field of a request."""

    field: str
    """Dotted path, such as `recipe.stages.0.allocation.amount`."""
    message: str


class ForwardArgument(Resource):
    """One argument of the model's `forward`."""

    name: str
    type: str
    optional: bool = False


class ModelInfo(Resource):
    """What inspecting a model found."""

    arguments: list[ForwardArgument]
    methods: list[str]
    parameters: int
    buffers: int
    dtypes: list[str]
    layers: list[str]
    """Qualified names of the submodules that own weights; patterns in recipes match these."""
    torchscript_bytes: int


class Model(Resource):
    """An uploaded TorchScript model.

    The server checks the file, writes it anew from what it has checked, and keeps that copy alone:
    the same program and weights, uncompressed. Jobs use the copy, and a download is the copy.
    """

    id: str
    name: str
    sha256: str
    """Of the copy, which is also the `ETag` and `Repr-Digest` of its download."""
    bytes: int
    """Of the copy."""
    upload_sha256: str | None = None
    """Of the file as it was first uploaded. The same file again is the same model."""
    status: ModelStatus
    error: JobError | None = None
    """Why the model was rejected."""
    info: ModelInfo | None = None
    """Known once the model is `ready`."""
    created_at: datetime


class TensorInfo(Resource):
    """One tensor of a dataset."""

    name: str
    dtype: str
    shape: list[int | None]
    """Samples first; null stands for sizes that differ between images, or need the recipe."""
    classes: list[str] | None = None
    """Targets of an image folder: the names of the classes, by index."""


class Dataset(Resource):
    """Uploaded samples: tensors named `train/inputs/0`, `train/targets/0`, ..., or files that give
    such tensors."""

    id: str
    name: str
    sha256: str
    bytes: int
    format: Literal["safetensors", "npz", "zip", "tar", "parquet", "arrow"]
    tensors: list[TensorInfo]
    """Empty where only a job can tell: tables, and shards whose columns the recipe names."""
    splits: dict[str, int]
    """Samples per split; tokens, where a split is a stream of them."""
    created_at: datetime


class UploadCreate(BaseModel):
    """Body of `POST /v1/uploads`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: UploadKind
    """What the file becomes."""
    name: str = Field(default="", max_length=200)
    bytes: int | None = Field(default=None, ge=1)
    """Size of the whole file; checked when it is complete."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the whole file, in lower-case hexadecimal digits; checked when it is complete."""


class Upload(Resource):
    """A file that arrives in parts."""

    id: str
    kind: UploadKind
    name: str
    status: UploadStatus
    """`completing` while its parts are put together; `refused` when the file was no such model or
    dataset."""
    bytes: int | None
    """Size of the whole file, if it was announced."""
    sha256: str | None
    """Of the whole file, if it was announced."""
    received_bytes: int
    received_parts: int
    part_bytes: int
    """A good size of parts; any other will do."""
    max_part_bytes: int
    max_parts: int
    resource_id: str | None = None
    """The model or dataset it became."""
    error: Problem | None = None
    """Why it was refused."""
    created_at: datetime
    expires_at: datetime
    """When an open upload is given up, counted from its last part; when one that ended is
    forgotten."""


class UploadPart(Resource):
    """A part that has arrived."""

    number: int
    """From 1; the file is its parts in this order."""
    sha256: str
    bytes: int


class PartReference(BaseModel):
    """A part as the client knows it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    number: int = Field(ge=1, le=MAX_PARTS)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class UploadComplete(BaseModel):
    """Body of `POST /v1/uploads/{id}/complete`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    parts: list[PartReference] | None = Field(default=None, max_length=MAX_PARTS)
    """All parts, compared with those that arrived; left out, the file is what arrived."""


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
    artifacts: list[Artifact] = []
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


class Method(Resource):
    """One name a recipe may use."""

    name: str
    kind: Literal[
        "granularity",
        "criterion",
        "tournament",
        "allocation",
        "schedule",
        "training",
        "quantization",
        "baseline",
        "scan",
        "sampler",
        "loss",
        "metric",
        "export",
    ]
    summary: str
    formula: str
    source: str
    data: Literal["none", "inputs", "labelled", "training"]
    cost: str
    schema_: dict[str, Any] = Field(alias="schema", serialization_alias="schema")


class Quota(Resource):
    """How much of something a tenant may have."""

    limit: int | None
    """Null where there is no bound."""
    used: int


class Limits(Resource):
    """Limits of this server."""

    max_model_bytes: int
    max_dataset_bytes: int
    max_archive_entries: int
    max_archive_ratio: float
    max_unpacked_bytes: int
    max_job_seconds: int
    max_attempts: int
    max_wait_seconds: int
    page_size_default: int
    page_size_max: int
    quotas: dict[str, Quota] = {}
    """Of the tenant: `stored_bytes`, `models`, `datasets`, `live_jobs`, `api_keys`, `webhooks`."""


ApiKeyScope = Literal["read", "write", "admin"]


class ApiKeyCreate(BaseModel):
    """Body of `POST /v1/api-keys`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="", max_length=200)
    scopes: list[ApiKeyScope] | None = Field(default=None, min_length=1, max_length=3)
    """`read`, `write`, `admin` (keys, webhooks, audit log); none includes another. Those of the
    key that makes it when left out, and never more."""
    expires_at: AwareDatetime | None = None
    """When it stops to open anything; never when left out."""


class ApiKeyRotation(BaseModel):
    """Body of `POST /v1/api-keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    grace_seconds: int = Field(default=86_400, ge=0, le=30 * 86_400)
    """How long the old secret still opens."""


class ApiKey(Resource):
    """An API key; the secret itself is shown once, at creation."""

    id: str
    name: str
    prefix: str
    scopes: list[ApiKeyScope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by_id: str | None = None
    """The key that a rotation made in its place."""
    secret: str | None = None


class AuditEntry(Resource):
    """One change that a request made, or was refused."""

    id: int
    key_id: str | None = None
    action: str
    """The operation's id in the API description."""
    target: str
    """Id of what was changed."""
    status: int | None = None
    """The HTTP status of the answer; None where the process died before there was one."""
    request_id: str
    address: str
    """Where the request came from."""
    created_at: datetime


WebhookEventType = Literal[
    "job.succeeded", "job.failed", "job.canceled", "job.expired", "model.ready", "model.rejected"
]


class WebhookCreate(BaseModel):
    """Body of `POST /v1/webhooks`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: str = Field(max_length=2000)
    """`https://...`; where messages are sent by POST."""
    event_types: list[WebhookEventType] = Field(default=[], max_length=32)
    """What to tell; everything when left empty."""
    description: str = Field(default="", max_length=200)


class WebhookUpdate(BaseModel):
    """Body of `PATCH /v1/webhooks/{id}`; what is left out stays."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: str | None = Field(default=None, max_length=2000)
    event_types: list[WebhookEventType] | None = Field(default=None, max_length=32)
    description: str | None = Field(default=None, max_length=200)
    enabled: bool | None = None
    """Switching it on again also forgets since when it failed."""


class WebhookRotation(BaseModel):
    """Body of `POST /v1/webhooks/{id}/rotate-secret`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    grace_seconds: int = Field(default=86_400, ge=0, le=30 * 86_400)
    """How long messages are signed by the old secret as well."""


class Webhook(Resource):
    """Where the server tells what."""

    id: str
    url: str
    description: str
    event_types: list[WebhookEventType]
    enabled: bool
    """False when it was switched off, by its owner or because it took nothing for five days or
    answered 410."""
    failing_since: datetime | None
    """Of the first failure since the last success."""
    previous_secret_expires_at: datetime | None
    created_at: datetime
    secret: str | None = None
    """`whsec_...`; shown at creation and rotation only."""


class DeliveryAttempt(Resource):
    """One attempt to deliver a message."""

    number: int
    status_code: int | None
    """Of the answer; null when there was none."""
    error: str
    """Empty when the message was taken."""
    response: str
    """The beginning of the answer."""
    elapsed_ms: int
    created_at: datetime


class Delivery(Resource):
    """A message for a webhook. `id` is its `webhook-id`, the same at every attempt."""

    id: str
    webhook_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed"]
    payload: dict[str, Any]
    attempts: list[DeliveryAttempt]
    next_attempt_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None


for _resource in (Problem, Model, Upload, Job):
    _resource.model_rebuild()
