"""Hostile programs in the real runner, past the gate: each harms its own job and nothing else.

Around every attack there are a file that must stay as it is, a folder in which nothing may appear,
and words that no log may show; and after all of them a good job gives the bits that it gave before.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import let_in, refused
from tests.attacks.archives import good, saved
from tests.attacks.past_the_door import Overwrites, Reads, Saves, SavesWhenLoaded, aimed
from tests.workers.worker_world import WorkerWorld, processes_of
from workers import supervisor
from workers.sandbox.choice import Containment
from workers.sandbox.launch import Level

SECRET = b"the-secret-of-another-tenant"
RECIPE: dict[str, Any] = {
    "inputs": [{"shape": [2, 4]}],
    "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
    "measure": {"batch_sizes": [1], "runs": 5},
}


class Field:
    """A worker's world with canaries in it."""

    def __init__(self, folder: Path) -> None:
        self.world = WorkerWorld(
            folder / "data",
            runner_cpu_seconds=12,
            runner_memory_bytes=3 << 30,
            runner_processes=400,
            runner_scratch_bytes=64 << 20,
            max_job_seconds=60,
            lease_seconds=30.0,
        )
        self.canary = folder / "canary"
        self.canary.write_bytes(SECRET * 400)
        self.empty = folder / "empty"
        self.empty.mkdir()
        foreign = self.world.add_model(SECRET * 10)
        self.foreign = self.world.store.path(self._sha256(foreign))
        self.scratch_of_another = self.world.settings.resolved_scratch_dir / "job_other.1"
        (self.scratch_of_another / "input").mkdir(parents=True)
        (self.scratch_of_another / "input" / "model.pt").write_bytes(SECRET * 10)
        self.models: dict[bytes, str] = {}
        self.before = self.canary.read_bytes()
        self.program = Path(supervisor.__file__)
        self.program_before = self.program.read_bytes()

    def _sha256(self, model_id: str) -> str:
        from persistence.records import ModelRecord  # noqa: PLC0415

        with self.world.database.session(read_only=True) as session:
            return session.get_one(ModelRecord, model_id).sha256

    @property
    def database(self) -> Path:
        return Path(str(self.world.database.engine.url.database))

    def run(self, archive: bytes, level: Level, type: str) -> tuple[str, str]:
        """Its job's id and outcome."""
        if archive not in self.models:
            self.models[archive] = self.world.add_model(archive)
        model_id = self.models[archive]
        recipe = None if type == "inspect" else RECIPE
        job_id = self.world.enqueue(type=type, model_id=model_id, recipe=recipe)
        worker = self.world.supervisor(containment=Containment(level), grace_seconds=0.5)
        return job_id, worker.run(job_id)

    def good_result(self, level: Level = "full") -> bytes:
        """The model that a good job makes."""
        job_id, outcome = self.run(good(), level, "compress")
        assert outcome == "succeeded", self.world.job(job_id).error
        [made] = [one for one in self.world.job(job_id).artifacts if one.kind == "model"]
        return self.world.store.path(made.sha256).read_bytes()

    def unharmed(self, job_id: str) -> None:
        """Nothing was written, changed, kept or shown that is not the job's."""
        assert self.canary.read_bytes() == self.before
        assert self.foreign.read_bytes() == SECRET * 10
        if self.program.read_bytes() != self.program_before:
            self.program.write_bytes(self.program_before)
            raise AssertionError(f"{self.program} was overwritten")
        assert list(self.empty.iterdir()) == []
        assert not Path("/tmp/stolen.pt").exists()  # noqa: S108
        assert processes_of(job_id) == []
        assert not [name for name in self.world.scratch() if name.startswith(job_id)]
        assert sqlite3.connect(self.database).execute("pragma quick_check").fetchone() == ("ok",)
        shown = self.world.log(job_id) + str(self.world.job(job_id).error)
        for secret in (SECRET, b"SQLite format 3", b"root:x:0:0"):
            assert secret.decode() not in shown
            assert str(list(secret[:16]))[1:-1] not in shown, "as numbers"


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    made = Field(tmp_path_factory.mktemp("field"))
    yield made
    made.world.database.dispose()


@pytest.fixture(scope="module")
def undisturbed(field: Field) -> bytes:
    return field.good_result()


@dataclass(frozen=True)
class Case:
    """An attack, how its job is to end, and words of its error.

    Attributes:
        make: the file, given the field.
        errors: types of error that say what happened; empty when the job may succeed.
        type: of the job.
        words: one of them is in the error.
    """

    make: Callable[[Field], bytes]
    errors: frozenset[str]
    type: str = "plan"
    words: tuple[str, ...] = ("",)


def _failing(
    make: Callable[[Field], bytes], *errors: str, type: str = "plan", words: str = ""
) -> Case:
    return Case(make, frozenset(errors), type, tuple(words.split("|")))


def _any(make: Callable[[Field], bytes], type: str = "plan") -> Case:
    return Case(make, frozenset(), type)


_FORWARD = ("model-raised", "inputs-do-not-fit")
"""What a failing `forward` is told as; which one depends on what the operator raises."""
_LOAD = ("model-raised", "not-torchscript")

PAST_THE_GATE: dict[str, Case] = {
    # where a runner has a /tmp of its own, this test's folders are not there and a write may
    # succeed into nothing: what counts is that nothing is there afterwards
    "save": _any(lambda f: aimed(Saves, f"{f.empty}/x.pt")),
    "save over a file": _any(lambda f: aimed(Saves, str(f.canary))),
    "save while loading": _any(lambda f: aimed(SavesWhenLoaded, f"{f.empty}/x.pt"), "inspect"),
    "overwrite by a shared map": _any(lambda f: aimed(Overwrites, str(f.canary))),
    "overwrite the database": _any(lambda f: aimed(Overwrites, str(f.database))),
    "overwrite another's model": _any(lambda f: aimed(Overwrites, str(f.foreign))),
    "overwrite a program": _failing(
        lambda _: aimed(Overwrites, str(Path(supervisor.__file__))), *_FORWARD
    ),
    "read a file": _failing(lambda f: aimed(Reads, str(f.canary)), *_FORWARD),
    "read the database": _failing(lambda f: aimed(Reads, str(f.database)), *_FORWARD),
    "read another's model": _failing(lambda f: aimed(Reads, str(f.foreign)), *_FORWARD),
    "read another's scratch": _failing(
        lambda f: aimed(Reads, f"{f.scratch_of_another}/input/model.pt"), *_FORWARD
    ),
    "read the list of users": _failing(lambda _: aimed(Reads, "/etc/passwd"), *_FORWARD),
    "read the worker's environment": _failing(
        lambda _: aimed(Reads, f"/proc/{os.getpid()}/environ"), *_FORWARD
    ),
    "fork bomb": _failing(
        lambda _: saved(refused.ForkBomb()),
        "out-of-memory", "too-many-processes", "cpu-time-exceeded", "job-timeout",
    ),
    "a command in the pickle": _failing(
        lambda f: refused.with_state(
            refused.global_call("posix", "system", refused.text(f"touch {f.empty}/x"))
        ),
        *_LOAD, type="inspect",
    ),
    "an absurd shape": _failing(
        lambda _: refused.PICKLES["a shape beyond"][0](), *_LOAD, type="inspect"
    ),
    "memory without checks": _any(lambda _: refused.OPERATORS["memory without checks"][0]()),
    "marks": _failing(lambda _: refused.PICKLES["marks"][0](), *_LOAD, type="inspect"),
    # read without harm, each as what it is worth: the gate is what refuses these
    "each other": _any(lambda _: refused.PICKLES["each other"][0](), "inspect"),
    "upwards": _any(lambda _: refused.ZIPS["upwards"][0](), "inspect"),
    "brackets": _any(lambda _: refused.CODES["brackets"][0](), "inspect"),
    "damaged weights": _any(lambda _: refused.ZIPS["damaged weights"][0](), "inspect"),
}  # fmt: skip

LET_IN: dict[str, Case] = {
    "endless": _failing(
        lambda _: saved(let_in.Endless()), "cpu-time-exceeded", "job-timeout", words="CPU|SECONDS"
    ),
    "endless while loading": _failing(
        lambda _: saved(let_in.EndlessWhileLoading()), "cpu-time-exceeded", "job-timeout",
        type="inspect",
    ),
    "greedy while loading": _failing(
        lambda _: saved(let_in.GreedyWhileLoading()), *_LOAD, type="inspect", words="memory"
    ),
    "raises while loading": _failing(
        lambda _: saved(let_in.RaisesWhileLoading()), *_LOAD, type="inspect"
    ),
    "hoards": _failing(
        lambda _: saved(let_in.Hoards()), "out-of-memory", *_FORWARD, words="memory"
    ),
    "recursing": _failing(
        lambda _: let_in.recursing(), "not-torchscript", words="called recursively"
    ),
    "talkative": _failing(lambda _: saved(let_in.Talkative())),
    "names that are none": _failing(lambda _: saved(let_in.Named())),
    "a zip in the zip": _failing(lambda _: let_in.nested_zip()),
    "weights that are no numbers": _failing(
        lambda _: saved(let_in.NotANumber(float("nan"))), "weights-not-numbers",
        type="compress",
        words="first.weight",
    ),
    "weights without bound": _failing(
        lambda _: saved(let_in.NotANumber(float("inf"))), "certificate-failed",
        type="compress",
        words="NaN",
    ),
}  # fmt: skip

_ORDINARY = {
    "save", "read the database", "fork bomb", "a command in the pickle", "recursing",
    "weights that are no numbers",
}  # fmt: skip
"""Run by every `make test`; all of them by `make test-exhaustive`."""


def cases(level: Level, given: dict[str, Case]) -> Iterator[Any]:
    for name, case in given.items():
        often = level == "full" and name in _ORDINARY
        marks = () if often else (pytest.mark.exhaustive,)
        yield pytest.param(level, case, id=f"{level}: {name}", marks=marks)


@pytest.mark.parametrize(
    ("level", "case"),
    [
        *cases("full", PAST_THE_GATE),
        *cases("full", LET_IN),
        *cases("kernel", PAST_THE_GATE),
        *cases("kernel", LET_IN),
    ],
)
def test_it_harms_its_own_job_only(field: Field, level: Level, case: Case) -> None:
    job_id, outcome = field.run(case.make(field), level, case.type)
    field.unharmed(job_id)
    if not case.errors:
        assert outcome in {"succeeded", "failed"}
        if outcome == "succeeded":
            return
    assert outcome == "failed"
    error = field.world.error(job_id)
    assert not case.errors or error["type"] in case.errors, error
    assert error["title"]
    assert error["hint"]
    assert "Traceback" not in str(error)
    assert error["title"].isprintable(), error
    assert len(str(error)) < 30_000
    assert any(word in str(error) for word in case.words), error


def test_a_good_job_beside_attacks_gives_the_same_bits(field: Field, undisturbed: bytes) -> None:
    stopped = threading.Event()
    ended: list[str] = []

    def attack() -> None:
        while not stopped.is_set():
            ended.append(field.run(saved(let_in.Hoards()), "full", "plan")[1])

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        assert field.good_result() == undisturbed
    finally:
        stopped.set()
        attacker.join(60)
    assert set(ended) == {"failed"}
