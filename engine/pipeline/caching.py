"""Whether the teacher's scores of a training run are kept in a file, and that file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from engine.calling import plain_execution
from engine.data.batches import Batch, batches, bounds, shuffled
from engine.data.drawn import drawn_anew
from engine.errors import TrainingRuleUnmet
from engine.job import Listener
from engine.pipeline.setup import Workbench
from engine.seeds import generator
from engine.training.distillation import Teacher
from engine.training.judging import teacher_of
from engine.training.run import TrainingRun
from engine.training.teacher_cache import KeptCache, TeacherCache, write_cache

MOST_BYTES = 4 << 30
"""Of the file."""
MOST_SHARE = 0.5
"""Of what is free on the disk of the work folder."""
_TRIED = 3
"""Batches that are compared with what the file says."""
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_DTYPES = {"exact": None, "float32": torch.float32, "float16": torch.float16}


class _Reason(Exception):
    """Why nothing is kept."""


def cached_teacher(
    bench: Workbench, run: TrainingRun, kept: KeptCache | None, listener: Listener, *, label: str
) -> KeptCache | None:
    """The cache of a run; None where the teacher runs on every batch.

    With `auto` it is there only where a run has it to the bit as without it, as far as the batches
    that are tried can tell. What cannot be kept is said in the log.

    Args:
        kept: of an earlier run of this process.

    Raises:
        TrainingRuleUnmet: `cache: on`, and what the teacher says of a sample depends on others.
    """
    distillation = run.options.distillation
    if distillation is None or distillation.cache == "off":
        return None
    of = _identity(run)
    if kept is not None and kept.of == of:
        return kept
    if distillation.cache == "auto" and len(run.epochs) < 2:
        return None
    try:
        cache = _made(bench, run)
    except _Reason as reason:
        listener.log(f"{label}: the teacher runs on every batch: {reason}")
        return None
    listener.log(
        f"{label}: the teacher's scores are kept in a file",
        samples=run.train.samples,
        bytes=cache.path.stat().st_size,
    )
    return KeptCache(of, cache)


def _identity(run: TrainingRun) -> tuple[Any, ...]:
    """What the rows of a file depend on, within a job."""
    options = run.options
    distillation = options.distillation
    assert distillation is not None  # noqa: S101  asked for training with a teacher
    return (
        run.train.samples,
        run.train.labelled,
        options.batch_size,
        distillation.kind,
        distillation.cache_dtype,
        repr(run.objective.trained_by(options)),
    )


def _made(bench: Workbench, run: TrainingRun) -> TeacherCache:
    if run.features:
        raise _Reason("its features are compared too")
    if drawn_anew(run.train):
        raise _Reason("random transforms change the samples in every epoch")
    teacher = teacher_of(run)
    if teacher is None:
        raise ValueError("a run without a teacher has nothing to keep")
    before = teacher.memory()
    with torch.no_grad(), plain_execution():
        first = _asked(teacher, next(iter(_in_order(run))))
        if any(not torch.equal(old, new) for old, new in _pairs(before, teacher.memory())):
            raise _Reason("it remembers what it was asked before")
        _require_room(bench, run, first)
        path = bench.job.workdir / "teacher.scores"
        distillation = run.options.distillation
        stored = _DTYPES[distillation.cache_dtype if distillation else "exact"]
        try:
            with closing(_in_order(run)) as made:
                cache = write_cache(
                    path,
                    made,
                    lambda batch: _asked(teacher, batch),
                    samples=run.train.samples,
                    stored=stored,
                )
        except OSError as error:
            raise _Reason(f"the file could not be written ({error.strerror})") from error
        try:
            _compare(run, teacher, cache)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return cache


def _in_order(run: TrainingRun) -> Any:
    return batches(run.train, run.options.batch_size, device=run.device)


def _asked(teacher: Teacher, batch: Batch) -> Tensor:
    """What it says of a batch, one row for each sample."""
    scores = teacher.answer(batch.inputs)
    if not scores.dim() or scores.shape[0] != batch.size:
        raise _Reason(f"it gives {list(scores.shape)} for {batch.size} samples")
    return scores


def _require_room(bench: Workbench, run: TrainingRun, first: Tensor) -> None:
    needed = first[0].numel() * first.element_size() * run.train.samples
    free = shutil.disk_usage(bench.job.workdir).free
    room = min(MOST_BYTES, int(MOST_SHARE * free))
    if needed > room:
        raise _Reason(f"its scores would take {needed:,} bytes, and there is room for {room:,}")


def _compare(run: TrainingRun, teacher: Teacher, cache: TeacherCache) -> None:
    """Hold the file against batches as training draws them.

    Raises:
        TrainingRuleUnmet: `cache: on`, and they differ by more than rounding.
    """
    distillation = run.options.distillation
    wanted = distillation is not None and distillation.cache == "on"
    for batch in _as_trained(run):
        if batch.rows is None:
            raise ValueError("a batch without its rows")
        asked = teacher.answer(batch.inputs)
        found = cache.scores(batch.rows, run.device)
        if torch.equal(asked, found):
            continue
        exact = asked.double()
        error = float((exact - found.double()).abs().max() / exact.abs().max().clamp_min(1e-12))
        if not wanted:
            raise _Reason(
                f"in another batch its scores differ by {error:.1g} of their size; `cache: on` "
                "accepts rounding"
            )
        if not error <= max(_ROUNDING.get(asked.dtype, 1e-3), _ROUNDING[cache.rows.dtype]):
            raise TrainingRuleUnmet(
                "what the teacher says of a sample depends on the other samples of its batch: its "
                f"scores differ by {error:.2g} of their size",
                hint="leave `cache` at `auto`, or set it to `off`",
                where=f"{run.field}.distillation.cache",
            )


def _as_trained(run: TrainingRun) -> Iterator[Batch]:
    """The first batches of the run's first epoch, and the last."""
    order = shuffled(run.train.samples, generator(run.seed, run.purpose, "shuffle", 0))
    size, device = run.options.batch_size, run.device
    yield from islice(batches(run.train, size, device=device, order=order), _TRIED)
    last = len(bounds(run.train.samples, size)) - 1
    if last >= _TRIED:
        yield from batches(run.train, size, device=device, order=order, first=last)


def _pairs(one: dict[str, Tensor], other: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return ((tensor, other[name]) for name, tensor in one.items())
