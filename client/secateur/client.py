"""The Python SDK: everything the API offers, as one object.

from secateur.client import Secateur
from secateur.results import save_results

with Secateur() as secateur:
    model = secateur.upload_model("model.pt")
    job = secateur.wait(secateur.create_job(model, recipe))
    save_results(secateur, job, Path("out"))
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from secateur import event_stream, part_upload
from secateur.answers import pages, parse
from secateur.api_keys import ApiKeys
from secateur.discovery import discover
from secateur.part_upload import Resumed
from secateur.recipe import Recipe
from secateur.report import Report
from secateur.report_score import ScoreReport
from secateur.report_search import SearchReport
from secateur.resources import (
    TERMINAL,
    Artifact,
    Dataset,
    Event,
    Job,
    JobCreate,
    JobRetry,
    JobStatus,
    JobType,
    Limits,
    Method,
    Metric,
    Model,
    Upload,
    UploadKind,
)
from secateur.transfer import (
    Progress,
    content_digest,
    download,
    file_sha256,
    read_chunks,
    readable_file,
)
from secateur.transport import Transport
from secateur.webhooks import Webhooks

R = TypeVar("R", bound=BaseModel)
LONG_POLL_SECONDS = 30
INSPECTION_POLL_SECONDS = 0.25


class Secateur:
    """A client of one Secateur server.

    Args:
        base_url: the server; by default `SECATEUR_URL`, else the embedded server of this machine.
        api_key: the key; by default `SECATEUR_API_KEY`, else the embedded server's.

    Every method raises `secateur.errors.ApiError` when the server refuses and
    `ServerUnreachable` when it does not answer after several attempts.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None) -> None:
        self._transport = Transport(discover(base_url, api_key))
        self.webhooks = Webhooks(self._transport)
        self.keys = ApiKeys(self._transport)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # Models and datasets --------------------------------------------------------------------

    def upload_model(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        progress: Progress | None = None,
        resumed: Resumed | None = None,
    ) -> Model:
        """Upload a TorchScript file; the same bytes again give the model that is already there.

        A large file (above `part_upload.IN_PARTS_ABOVE`) goes in parts, several at once. When that
        was interrupted, the same call goes on where it stopped, and tells so to `resumed`.
        """
        return self._upload("model", Model, path, name, progress, resumed)

    def upload_dataset(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        progress: Progress | None = None,
        resumed: Resumed | None = None,
    ) -> Dataset:
        """Upload a dataset: tensors (safetensors, npz), images in folders or WebDataset shards
        (zip, tar), or a table (Parquet, Arrow). The content tells which. Large files go in parts,
        as in `upload_model`."""
        return self._upload("dataset", Dataset, path, name, progress, resumed)

    def uploads(self, **filters: Any) -> Iterator[Upload]:
        """Uploads in parts, newest first; `status="open"` lists those that go on."""
        return self._pages("/v1/uploads", Upload, filters)

    def abort_upload(self, upload: Upload | str) -> None:
        """Give up an upload in parts; nothing of it is kept."""
        self._transport.request("DELETE", f"/v1/uploads/{_id(upload)}")

    def model(self, model_id: str) -> Model:
        """One model."""
        return self._get(f"/v1/models/{model_id}", Model)

    def wait_until_inspected(self, model: Model | str, *, timeout: float = 60) -> Model:
        """Wait until the server has looked inside a model: it is `ready` or `rejected` then.

        Raises:
            TimeoutError: it had not in time; its worker may be busy with other jobs.
        """
        deadline = time.monotonic() + timeout
        while True:
            current = self.model(_id(model))
            if current.status != "uploaded":
                return current
            if time.monotonic() > deadline:
                raise TimeoutError(f"{current.id} is not inspected after {timeout} s")
            time.sleep(INSPECTION_POLL_SECONDS)

    def models(self, **filters: Any) -> Iterator[Model]:
        """All models, newest first."""
        return self._pages("/v1/models", Model, filters)

    def delete_model(self, model: Model | str) -> None:
        """Delete a model that no job uses."""
        self._transport.request("DELETE", f"/v1/models/{_id(model)}")

    def download_model(
        self, model: Model, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
        """Download a model again, verified: the copy the server keeps, same program and weights."""
        source = f"/v1/models/{model.id}/content"
        return download(
            self._transport, source, Path(path),
            sha256=model.sha256, size=model.bytes, progress=progress,
        )  # fmt: skip

    def dataset(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return self._get(f"/v1/datasets/{dataset_id}", Dataset)

    def datasets(self, **filters: Any) -> Iterator[Dataset]:
        """All datasets, newest first."""
        return self._pages("/v1/datasets", Dataset, filters)

    def delete_dataset(self, dataset: Dataset | str) -> None:
        """Delete a dataset that no job uses."""
        self._transport.request("DELETE", f"/v1/datasets/{_id(dataset)}")

    # Jobs -----------------------------------------------------------------------------------

    def create_job(
        self,
        model: Model | str,
        recipe: Recipe | dict[str, Any],
        *,
        dataset: Dataset | str | None = None,
        initial: Model | str | None = None,
        loss: Model | str | None = None,
        metric: Model | str | None = None,
        **options: Any,
    ) -> Job:
        """Queue a job.

        Args:
            model: what to compress.
            recipe: how; see `secateur.recipe`.
            dataset: needed for training and for accuracies.
            initial: the same model before it was trained, for schedules that go back to its
                weights.
            loss: an uploaded loss, for `objective.loss: module`.
            metric: an uploaded metric, for `objective.metric: module`.
            options: further fields of `secateur.resources.JobCreate` (`type`, `device`,
                `priority`, `deadline`, ...).
        """
        if isinstance(recipe, Recipe):
            searched = recipe.search is not None
            recipe = (
                recipe.as_written
                if searched
                else recipe.model_dump(mode="json", exclude_unset=True)
            )
        fields = {"model_id": _id(model), "recipe": recipe, **options}
        if isinstance(fields.get("deadline"), datetime):
            fields["deadline"] = fields["deadline"].isoformat()
        unknown = fields.keys() - JobCreate.model_fields.keys()
        if unknown:
            raise TypeError(f"create_job() got unexpected options: {', '.join(sorted(unknown))}")
        if dataset is not None:
            fields["dataset_id"] = _id(dataset)
        for role, given in (("initial", initial), ("loss", loss), ("metric", metric)):
            if given is not None:
                fields[f"{role}_model_id"] = _id(given)
        response = self._transport.request(
            "POST", "/v1/jobs", json=fields, headers={"Idempotency-Key": secrets.token_hex(16)}
        )
        return parse(Job, response.content)

    def job(self, job_id: str, *, wait: float | None = None) -> Job:
        """One job; with `wait`, answers when it has ended or after so many seconds."""
        params = {} if wait is None else {"wait": wait}
        return self._get(f"/v1/jobs/{job_id}", Job, params)

    get_job = job

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        type: JobType | None = None,
        model_id: str | None = None,
        parent: Job | str | None = None,
        **filters: Any,
    ) -> Iterator[Job]:
        """All jobs that match, newest first; the trials of a search with it as `parent` only."""
        parent_id = None if parent is None else _id(parent)
        given = {"status": status, "type": type, "model_id": model_id, "parent_id": parent_id}
        return self._pages("/v1/jobs", Job, {**given, **filters})

    def cancel(self, job: Job | str) -> Job:
        """Ask for a job to stop; a finished one stays as it is."""
        response = self._transport.request("POST", f"/v1/jobs/{_id(job)}/cancel")
        return parse(Job, response.content)

    def retry(self, job: Job | str, **changes: Any) -> Job:
        """Queue a job again that failed, was canceled or expired; returns the new job, which goes
        on from the last checkpoint of the old one where that is still kept.

        Args:
            job: the ended job.
            changes: fields of `secateur.resources.JobRetry` that shall differ (`deadline`,
                `max_wait_seconds`, `max_run_seconds`, `priority`).
        """
        response = self._transport.request(
            "POST",
            f"/v1/jobs/{_id(job)}/retry",
            json=JobRetry(**changes).model_dump(mode="json", exclude_unset=True),
            headers={"Idempotency-Key": secrets.token_hex(16)},
        )
        return parse(Job, response.content)

    def wait(
        self,
        job: Job | str,
        *,
        on_event: Callable[[Event], None] | None = None,
        timeout: float | None = None,
    ) -> Job:
        """Wait until a job has ended, however it ended.

        Args:
            job: the job.
            on_event: hears every event as it happens.
            timeout: seconds; without one it waits for ever.

        Raises:
            TimeoutError: the job had not ended in time. It goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if on_event is not None:
            for event in self.events(job, follow=True):
                on_event(event)
                if deadline is not None and time.monotonic() > deadline:
                    break
        while True:
            left = LONG_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            current = self.job(_id(job), wait=max(0.0, min(LONG_POLL_SECONDS, left)))
            if current.status in TERMINAL:
                return current
            if left <= 0:
                raise TimeoutError(f"{current.id} is still {current.status} after {timeout} s")

    def events(self, job: Job | str, *, after: int = 0, follow: bool = False) -> Iterator[Event]:
        """Events of a job after number `after`: those so far, or live until it ends."""
        if follow:
            return event_stream.follow(self._transport, _id(job), after)
        return self._pages(f"/v1/jobs/{_id(job)}/events", Event, {"after": str(after)}, "after")

    def metrics(self, job: Job | str, *, name: str | None = None) -> Iterator[Metric]:
        """What was measured while the job ran."""
        return self._pages(f"/v1/jobs/{_id(job)}/metrics", Metric, {"name": name}, "after")

    def logs(self, job: Job | str) -> str:
        """What the job's process printed."""
        return self._transport.request(
            "GET", f"/v1/jobs/{_id(job)}/logs", headers={"Accept": "text/plain"}
        ).text

    def report(self, job: Job | str) -> Report:
        """The report of a finished compress job."""
        return self._get(f"/v1/jobs/{_id(job)}/report", Report)

    def score_report(self, job: Job | str) -> ScoreReport:
        """The report of a finished score job: how sensitive every layer is."""
        return self._get(f"/v1/jobs/{_id(job)}/report", ScoreReport)

    def search_report(self, job: Job | str) -> SearchReport:
        """The report of a finished search: every trial, the front and the result."""
        return self._get(f"/v1/jobs/{_id(job)}/report", SearchReport)

    def report_html(self, job: Job | str) -> str:
        """The report as one self-contained HTML page."""
        return self._transport.request(
            "GET", f"/v1/jobs/{_id(job)}/report", headers={"Accept": "text/html"}
        ).text

    def artifacts(self, job: Job | str) -> Iterator[Artifact]:
        """The files a job produced."""
        return self._pages(f"/v1/jobs/{_id(job)}/artifacts", Artifact, {})

    def download(
        self,
        artifact: Artifact,
        path: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> Path:
        """Download an artifact to a file: resumed where it broke off, verified, or not at all."""
        source = f"/v1/artifacts/{artifact.id}/content"
        return download(
            self._transport, source, Path(path),
            sha256=artifact.sha256, size=artifact.bytes, progress=progress,
        )  # fmt: skip

    # The server -----------------------------------------------------------------------------

    def methods(self) -> list[Method]:
        """Every name a recipe may use, with its meaning and schema."""
        return list(self._pages("/v1/methods", Method, {}))

    def limits(self) -> Limits:
        """What the server accepts."""
        return self._get("/v1/limits", Limits)

    # Inside ---------------------------------------------------------------------------------

    def _get(self, path: str, kind: type[R], params: dict[str, Any] | None = None) -> R:
        headers = {"Accept": "application/json"}
        response = self._transport.request("GET", path, params=params, headers=headers)
        return parse(kind, response.content)

    def _pages(
        self, path: str, kind: type[R], filters: dict[str, Any], cursor: str = "cursor"
    ) -> Iterator[R]:
        return pages(self._transport, path, kind, filters, cursor)

    def _upload(  # noqa: PLR0917 - of two public methods
        self,
        kind: UploadKind,
        made: type[R],
        path: str | os.PathLike[str],
        name: str,
        progress: Progress | None,
        resumed: Resumed | None,
    ) -> R:
        file = readable_file(path)
        name = name or file.name
        if file.stat().st_size > part_upload.IN_PARTS_ABOVE:
            answer = part_upload.upload_in_parts(
                self._transport, kind, file, name=name, progress=progress, resumed=resumed
            )
            return parse(made, answer)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
            "Content-Digest": content_digest(file_sha256(file)),
            "Idempotency-Key": secrets.token_hex(16),
        }
        response = self._transport.request(
            "POST",
            f"/v1/{kind}s",
            params={"name": name},
            headers=headers,
            body=lambda: read_chunks(file, progress),
        )
        return parse(made, response.content)


def _id(resource: Any) -> str:
    return resource if isinstance(resource, str) else str(resource.id)
