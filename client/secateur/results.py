"""The results of a job as a folder: all of it or nothing.

Files are first completed in a temporary folder beside the target and verified there; only then
do they take their place. Files of an earlier run in the same folder are replaced.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from secateur.client import Secateur
from secateur.errors import SecateurError
from secateur.resources import Artifact, Job

NAMES = {
    "model": "compact.pt",
    "report_json": "report.json",
    "report_html": "report.html",
    "recipe": "recipe.yaml",
    "masks": "masks.safetensors",
    "scores": "scores.safetensors",
    "plot": "sensitivity.svg",
    "safetensors": "compact.safetensors",
    "onnx": "compact.onnx",
    "pt2": "compact.pt2",
    "openvino": "compact.openvino.zip",
    "triton": "compact.triton.zip",
    "libtorch": "compact.libtorch.zip",
    "aot_inductor": "compact.aoti.pt2",
    "secateur": "compact.secateur",
}
"""File name of every kind of artifact that is a result (checkpoints are not)."""
WHOLE = frozenset({"compact.pt", "report.json", "report.html", "recipe.yaml"})
SCANNED = frozenset(
    {"report.json", "report.html", "recipe.yaml", "scores.safetensors", "sensitivity.svg"}
)
"""What a score job leaves, which makes no model."""
SEARCHED = WHOLE | {"front.svg", "result-report.json", "result-report.html"}
"""What a search leaves: its own report, and that of the trial which is its result."""
OF_RESULT = {"report.json": "result-report.json", "report.html": "result-report.html"}
_WHOLE_OF = {"score": SCANNED, "search": SEARCHED}
FAILED = {"report.json": "failed-report.json", "report.html": "failed-report.html"}
"""Names of the report of a job that failed: `report.json` is there only beside its model."""


def save_results(
    client: Secateur,
    job: Job,
    folder: Path,
    *,
    progress: Callable[[Artifact, int, int], None] | None = None,
) -> list[Path]:
    """Write what a succeeded job produced to `folder`.

    Returns:
        The files, `report.json` and, for all but a score job, `compact.pt` among them.

    Raises:
        SecateurError: the job has not produced everything, or a file did not arrive whole.
    """
    with _staging(folder) as staging:
        chosen = (job.result or {}).get("chosen") if job.type == "search" else None
        if chosen is not None:
            trial = client.job(chosen["job_id"])
            _fetch(client, trial, staging, progress, only=frozenset(OF_RESULT))
            _rename(staging, OF_RESULT)
        _fetch(client, job, staging, progress)
        recipe = staging / "recipe.yaml"
        if not recipe.exists() and job.recipe is not None:
            recipe.write_text(yaml.safe_dump(job.recipe, sort_keys=False))
        missing = _WHOLE_OF.get(job.type, WHOLE) - {path.name for path in staging.iterdir()}
        if missing:
            raise SecateurError(
                f"job {job.id} is {job.status} and has no {', '.join(sorted(missing))}",
                hint=f"see `secateur jobs show {job.id}`",
            )
        return _move(staging, folder)


def save_failed_report(client: Secateur, job: Job, folder: Path) -> list[Path]:
    """Write the report of a job that failed after measuring, if there is one.

    Its files are named `failed-report.*`, so that `report.json` always belongs to the
    `compact.pt` beside it.
    """
    with _staging(folder) as staging:
        _fetch(client, job, staging, None, only=frozenset(FAILED))
        _rename(staging, FAILED)
        return _move(staging, folder)


def _rename(staging: Path, names: Mapping[str, str]) -> None:
    for name, other in names.items():
        if (staging / name).exists():
            (staging / name).rename(staging / other)


def _fetch(
    client: Secateur,
    job: Job,
    staging: Path,
    progress: Callable[[Artifact, int, int], None] | None,
    only: frozenset[str] | None = None,
) -> None:
    for artifact in client.artifacts(job):
        name = NAMES.get(artifact.kind)
        if name is not None and artifact.media_type == "application/zip":
            name = f"{name.removesuffix('.zip')}.zip"  # an export of several files
        if artifact.kind == "plot" and job.type == "search":
            name = "front.svg"
        if name is None or (only is not None and name not in only):
            continue

        def report(done: int, total: int, artifact: Artifact = artifact) -> None:
            if progress is not None:
                progress(artifact, done, total)

        client.download(artifact, staging / name, progress=report)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A temporary folder on the file system of `folder`, which is only made when needed."""
    parent = folder if folder.is_dir() else _existing_parent(folder)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=parent))
    except OSError as error:
        raise SecateurError(
            f"cannot write to {parent}: {error.strerror}", hint="choose another output folder"
        ) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _existing_parent(folder: Path) -> Path:
    for parent in folder.absolute().parents:
        if parent.exists():
            return parent
    return Path.cwd()


def _move(staging: Path, folder: Path) -> list[Path]:
    files = sorted(staging.iterdir())
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    return [path.replace(folder / path.name) for path in files]
