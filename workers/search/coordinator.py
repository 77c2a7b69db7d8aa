"""The steps of a search: see which trials have ended, start the next, and end with the best.

A step is taken by whichever worker was poked, in the moment it takes, and holds no slot afterwards.
It reads what is in the database, works out what follows from that, locks the search's row, looks
whether what it read still holds, and writes everything in one transaction. So it may be taken
twice, at once or never: nothing is started twice, and a worker killed in the middle has done
nothing. Every end of a trial pokes the search; the reconciler pokes it when a poke was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from pydantic import ValidationError
from secateur.recipe import Recipe
from secateur.recipe_search import Search
from secateur.search_space import at_point
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from persistence import blobs
from persistence.artifact_store import ArtifactStore
from persistence.database import Database
from persistence.job_queue import request_cancel, trials
from persistence.job_queue.clocks import database_time, deadline_passed
from persistence.job_queue.completion import settle
from persistence.records import LIVE, JobRecord
from workers import endings
from workers.endings import Ending
from workers.search.closing import Closing, close
from workers.search.outcome import Outcome, outcome_of
from workers.search.report import Ended

log = structlog.get_logger()

Step = Literal["not a search", "waiting", "ended"]
_INVALID = "recipe-invalid"
_MOST_COLLISIONS = 10


@dataclass(frozen=True)
class Seen:
    """The search as a step found it."""

    record: JobRecord
    trials: Sequence[JobRecord]

    @property
    def mark(self) -> tuple[Any, ...]:
        """Equal while nothing has happened that a step would care about."""
        return (
            self.record.status,
            [(one.id, one.status, "outcome" in (one.trial or {})) for one in self.trials],
        )

    @property
    def live(self) -> int:
        """Trials that have not ended."""
        return sum(one.status in LIVE for one in self.trials)


@dataclass(frozen=True)
class Next:
    """A trial to be started; with `fault` it has failed before it began."""

    number: int
    point: dict[str, Any]
    memory: dict[str, Any]
    recipe: dict[str, Any]
    fault: str | None


@dataclass(frozen=True)
class Decision:
    """What follows from what was seen."""

    outcomes: dict[str, Outcome]
    """Of trials that have ended since, by job id."""
    starts: Sequence[Next] = ()
    total: int = 0
    """Trials there will be."""
    closing: Closing | None = None


def advance(database: Database, store: ArtifactStore, job_id: str) -> Step:
    """Take every step of a search that can be taken now; a job that is none is left alone.

    Raises:
        DBAPIError: the database does not answer; nothing was written.
        OSError: the artifact store does not answer; nothing was written.
    """
    collisions = 0
    while True:
        with database.session(read_only=True) as session:
            seen = _look(session, job_id)
        if seen is None:
            return "not a search"
        try:
            decision = _decide(seen, store)
            taken = _take(database, store, seen, decision)
        except IntegrityError:
            # another step was faster, which the next look shows
            collisions += 1
            if collisions > _MOST_COLLISIONS:
                raise
            continue
        except (DBAPIError, OSError):
            raise
        except ValidationError as error:
            _give_up(database, job_id, _outdated(error))
            return "ended"
        except Exception:
            # it would fail the same way at every poke, and the search would never end
            log.exception("search failed", job=job_id)
            _give_up(database, job_id)
            return "ended"
        if taken is not None:
            return taken


def _look(session: Session, job_id: str, *, lock: bool = False) -> Seen | None:
    record = trials.live_search(session, job_id, lock=lock)
    return None if record is None else Seen(record, trials.trials(session, job_id))


def _decide(seen: Seen, store: ArtifactStore) -> Decision:
    if seen.record.status == "canceling":
        return Decision({})
    recipe = seen.record.recipe or {}
    # not the whole recipe: its corners were checked at the door, and each trial is checked below
    search = Search.model_validate(recipe.get("search"))
    base = {key: value for key, value in recipe.items() if key != "search"}
    outcomes = {
        one.id: outcome_of(search, one, store)
        for one in seen.trials
        if one.status not in LIVE and "outcome" not in (one.trial or {})
    }
    ended = [
        Ended(one, outcomes.get(one.id) or Outcome.model_validate((one.trial or {})["outcome"]))
        for one in seen.trials
        if one.status not in LIVE
    ]
    room = min(search.parallel - seen.live, search.trials - len(seen.trials))
    starts = _next(base, search, seen, {one.record.id: one.outcome for one in ended}, room)
    exhausted = len(starts) < room
    total = len(seen.trials) + len(starts) if exhausted else search.trials
    closing = None
    if not starts and seen.live == 0:
        closing = close(recipe, search, ended, store)
    return Decision(outcomes, starts, total, closing)


def _next(
    base: dict[str, Any], search: Search, seen: Seen, outcomes: dict[str, Outcome], room: int
) -> list[Next]:
    """The trials that there is room for; fewer when everything has been tried."""
    if room <= 0:
        return []
    # Optuna is only loaded where there is a search to carry on
    from workers.search.sampling import Tried, suggest  # noqa: PLC0415

    tried = [_tried(Tried, search, one.trial or {}, outcomes.get(one.id)) for one in seen.trials]
    found: list[Next] = []
    for number in range(len(tried), len(tried) + room):
        suggestion = suggest(search, tried)
        if suggestion is None:
            break
        recipe = at_point(base, suggestion.point)
        fault = None
        try:
            recipe = Recipe.model_validate(recipe).model_dump(mode="json")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            fault = f"{where}: {first['msg'].removeprefix('Value error, ')}"
        found.append(Next(number, suggestion.point, suggestion.memory, recipe, fault))
        ended = fault is not None
        tried.append(Tried(suggestion.point, ended=ended, memory=suggestion.memory))
    return found


def _tried(kind: Any, search: Search, trial: dict[str, Any], outcome: Outcome | None) -> Any:
    good = outcome is not None and outcome.state in ("succeeded", "infeasible")
    measured = good and outcome is not None and all(n in outcome.values for n in search.objectives)
    return kind(
        point=trial["parameters"],
        values=[outcome.values[name] for name in search.objectives]
        if measured and outcome is not None
        else None,
        ended=outcome is not None,
        acceptable=outcome is not None and outcome.state == "succeeded",
        memory=trial["sampler"],
    )


def _take(database: Database, store: ArtifactStore, seen: Seen, decision: Decision) -> Step | None:
    """Write the decision; None when it is out of date, or when there is more to decide at once."""
    with database.session() as session:
        now = _look(session, seen.record.id, lock=True)
        if now is None:
            return "ended"
        if now.mark != seen.mark:
            return None
        search = now.record
        trials.begin(session, search)
        late = _too_late(session, now, decision)
        if search.status == "canceling" or late is not None:
            if now.live:
                return "waiting"  # for trials that are called off, or have the same deadline
            status: Literal["canceled", "expired"] = "canceled" if late is None else "expired"
            trials.end(session, search, status, error=late)
            return "ended"
        for trial in now.trials:
            if trial.id in decision.outcomes:
                outcome = decision.outcomes[trial.id].model_dump(mode="json")
                trials.see_end(session, search, trial, outcome)
        for start in decision.starts:
            _start(session, search, start)
        failed = sum(start.fault is not None for start in decision.starts)
        done = len(now.trials) - now.live + failed
        trials.show_progress(session, search, done, decision.total)
        if decision.closing is not None:
            _end(session, store, search, decision.closing)
            log.info("search ended", job=search.id, status=decision.closing.status)
            return "ended"
        log.info("search goes on", job=search.id, started=len(decision.starts), ended=done)
        return None if failed else "waiting"


def _too_late(session: Session, seen: Seen, decision: Decision) -> Mapping[str, Any] | None:
    """The error of a search that cannot end by its deadline; None where every trial did."""
    deadline = seen.record.deadline
    if deadline is None or seen.record.status == "canceling" or database_time(session) < deadline:
        return None
    open_ends = decision.starts or any(one.status in (*LIVE, "expired") for one in seen.trials)
    return deadline_passed(deadline) if open_ends or not seen.trials else None


def _start(session: Session, search: JobRecord, start: Next) -> None:
    trial = trials.start_trial(
        session,
        search,
        start.number,
        recipe=start.recipe,
        parameters=start.point,
        sampler=start.memory,
    )
    if start.fault is not None:
        error = endings.failed(
            _INVALID,
            f"The recipe is not valid with these values: {start.fault}",
            "Narrow the space so that these values do not come together.",
            where="recipe",
        ).error
        settle(session, trial.id, "failed", error=error)
        outcome = Outcome(state="failed", reason=str((error or {})["title"]))
        trials.see_end(session, search, trial, outcome.model_dump(mode="json"))


def _end(session: Session, store: ArtifactStore, search: JobRecord, closing: Closing) -> None:
    # in one order everywhere, so that two jobs with the same files cannot deadlock
    for file in sorted(closing.files, key=lambda file: file.blob.sha256):
        blobs.lock(session, file.blob.sha256)
        if not store.exists(file.blob.sha256):
            raise FileNotFoundError(f"{file.name} left the artifact store again")
    trials.end(
        session,
        search,
        closing.status,
        files=closing.files,
        error=closing.error,
        result=closing.result,
    )


def _outdated(error: ValidationError) -> Ending:
    """An upgrade of the service may refuse what an older one accepted."""
    first = error.errors(include_url=False)[0]
    return endings.failed(
        _INVALID,
        f"The search is not valid: {first['msg']}",
        "Correct the field and submit the job again.",
        where=".".join(["recipe", "search", *(str(part) for part in first["loc"])]),
    )


def _give_up(database: Database, job_id: str, ending: Ending = endings.INTERNAL) -> None:
    with database.session() as session:
        seen = _look(session, job_id, lock=True)
        if seen is None:
            return
        for trial in seen.trials:
            if trial.status in LIVE:
                request_cancel(session, trial)
        trials.end(session, seen.record, "failed", error=ending.error)
