"""What to try next, from nothing but the search, its seed and the trials so far.

The study of Optuna lives in memory for one suggestion and is built anew from the database's trials
each time, with a sampler seeded by the trial's number: the same trials give the same next values,
in whatever process. What a sampler wants to remember of a trial (`nsga2`: its generation) is kept
beside the trial and given back.

Values are encoded so that every sampler sees plain numbers: a list by the place in it, a range with
steps by the count of steps, whole numbers and continua as they are.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState
from secateur.recipe_search import MAXIMIZED, Search, Span
from secateur.search_space import count_of, is_whole, number_of_points, value_at

optuna.logging.set_verbosity(optuna.logging.WARNING)

_ATTEMPTS = 40
"""Draws before a point that was tried already is given up for an untried one."""
_DIGITS = 6
"""Significant digits of a sampled number: enough for a ratio, and a recipe that can be read."""
_OUT_OF_BOUNDS = "search"


@dataclass(frozen=True)
class Tried:
    """A trial so far.

    Attributes:
        point: its values by path.
        values: its objectives, in the order of the search; None where it runs or failed.
        ended: whether it has ended.
        acceptable: whether it keeps to bounds and constraints.
        memory: what the sampler wanted to remember.
    """

    point: Mapping[str, Any]
    values: Sequence[float] | None = None
    ended: bool = False
    acceptable: bool = True
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """The values of the next trial."""

    point: dict[str, Any]
    memory: dict[str, Any]


def suggest(search: Search, tried: Sequence[Tried]) -> Suggestion | None:
    """What trial number `len(tried)` should try; None when everything has been tried.

    No point is suggested twice.
    """
    number = len(tried)
    seen = {_identity(one.point) for one in tried}
    total = number_of_points(search.space)
    if total is not None and len(seen) >= total:
        return None
    if search.sampler == "grid":
        return Suggestion(_point_of_grid(search, number), {})
    for attempt in range(_ATTEMPTS):
        seed = _seed(search.seed, number, attempt)
        # a sampler that has settled on a point will not leave it: the last draws are at random
        settled = attempt >= _ATTEMPTS // 2
        sampler = RandomSampler(seed) if settled else _sampler(search, seed)
        found = _draw(search, tried, sampler)
        if _identity(found.point) not in seen:
            return found
    return None if total is None else _untried(search, seen, total, _seed(search.seed, number, 0))


def _draw(search: Search, tried: Sequence[Tried], sampler: BaseSampler) -> Suggestion:
    directions = [
        StudyDirection.MAXIMIZE if name in MAXIMIZED else StudyDirection.MINIMIZE
        for name in search.objectives
    ]
    study = optuna.create_study(directions=directions, sampler=sampler)
    distributions = {path: _distribution(dimension) for path, dimension in search.space.items()}
    study.add_trials([_remembered(search, one, distributions) for one in tried])
    trial = study.ask(distributions)
    memory = study.trials[-1].system_attrs
    point = {path: _decoded(search.space[path], trial.params[path]) for path in search.space}
    return Suggestion(point, dict(memory))


def _remembered(
    search: Search, one: Tried, distributions: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    state = TrialState.COMPLETE if one.values is not None else TrialState.FAIL
    return optuna.trial.create_trial(
        state=state if one.ended else TrialState.RUNNING,
        values=one.values if one.ended else None,
        params={path: _encoded(search.space[path], value) for path, value in one.point.items()},
        distributions=distributions,
        system_attrs=dict(one.memory),
        constraints={_OUT_OF_BOUNDS: 0.0 if one.acceptable else 1.0}
        if one.ended and one.values is not None
        else None,
    )


def _sampler(search: Search, seed: int) -> BaseSampler:
    """The sampler; how many trials are drawn at random first depends on how many there will be."""
    if search.sampler == "random":
        return RandomSampler(seed)
    if search.sampler == "nsga2":
        return NSGAIISampler(population_size=min(max(search.trials // 5, 4), 50), seed=seed)
    return TPESampler(n_startup_trials=min(max(search.trials // 4, 2), 10), seed=seed)


def _distribution(dimension: Span | list[Any]) -> BaseDistribution:
    if isinstance(dimension, list):
        return CategoricalDistribution(list(range(len(dimension))))
    count = count_of(dimension)
    if dimension.step is not None and count is not None:
        return IntDistribution(0, count - 1)
    if is_whole(dimension):
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _encoded(dimension: Span | list[Any], value: Any) -> Any:
    if isinstance(dimension, list):
        return next(
            index
            for index, one in enumerate(dimension)
            if type(one) is type(value) and one == value
        )
    if dimension.step is not None:
        return round((value - dimension.low) / dimension.step)
    return value


def _decoded(dimension: Span | list[Any], drawn: Any) -> Any:
    if isinstance(dimension, list) or dimension.step is not None:
        return value_at(dimension, drawn)
    if is_whole(dimension):
        return int(drawn)
    rounded = float(f"{drawn:.{_DIGITS}g}")
    return min(max(rounded, float(dimension.low)), float(dimension.high))


def _point_of_grid(search: Search, number: int) -> dict[str, Any]:
    """In order where all points are tried, else drawn without repetition by the seed."""
    total = number_of_points(search.space)
    if total is None:
        raise ValueError("a grid has steps in every direction; the recipe's types see to that")
    if search.trials < total:
        number = random.Random(search.seed).sample(range(total), search.trials)[number]  # noqa: S311 - no secret
    return _numbered(search, number)


def _numbered(search: Search, number: int) -> dict[str, Any]:
    """Point `number` of all, the last path varying fastest."""
    point: dict[str, Any] = {}
    for path, dimension in reversed(search.space.items()):
        count = count_of(dimension) or 1
        number, index = divmod(number, count)
        point[path] = value_at(dimension, index)
    return {path: point[path] for path in search.space}


def _untried(search: Search, seen: set[str], total: int, seed: int) -> Suggestion | None:
    start = seed % total
    for step in range(min(total, len(seen) + 1)):
        point = _numbered(search, (start + step) % total)
        if _identity(point) not in seen:
            return Suggestion(point, {})
    return None


def _identity(point: Mapping[str, Any]) -> str:
    """Equal for equal points: `1` and `1.0` are one value, `1` and `True` are two."""

    def same(value: Any) -> str:
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            return repr(int(value))
        return repr(value)

    return repr(sorted((path, same(value)) for path, value in point.items()))


def _seed(seed: int, number: int, attempt: int) -> int:
    """A seed for each draw, so that none depends on how many came before in this process."""
    digest = hashlib.sha256(f"{seed}/{number}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
