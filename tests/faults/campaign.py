"""A campaign: users at work, faults at random moments, and peace at the end, in which everything
is counted and checked."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import invariants
from tests.faults.cluster import Store, cluster
from tests.faults.injectors import Fault
from tests.faults.load import Users


@dataclass(frozen=True)
class Campaign:
    """One installation and what happens to it.

    Attributes:
        name: for the table.
        broker: `redis` or `rabbitmq`.
        faults: each with how often it strikes, in random order.
        pause: seconds between two faults, from and to.
        users: jobs at once.
        recipes: of `tests.faults.load`.
        extra: environment of the workers; `{folder}` is that of the installation.
        store: where its files lie.
    """

    name: str
    broker: str
    faults: Sequence[tuple[Fault, int]]
    pause: tuple[float, float] = (0.2, 2.0)
    users: int = 3
    recipes: tuple[str, ...] = ("prune and train", "prune in rounds")
    extra: Mapping[str, str] = field(default_factory=dict)
    store: Store = "folder"


@dataclass
class Outcome:
    """What a campaign did."""

    name: str
    seed: int
    done: dict[str, int]
    ended: dict[str, int]
    jobs: int
    resumed: int
    seconds: float


def run(campaign: Campaign, folder: Path, seed: int) -> Outcome:
    """Run it to the end.

    Raises:
        AssertionError: something that must hold did not; the installation's logs are in `folder`.
    """
    began = time.monotonic()
    chance = random.Random(f"{campaign.name} {seed}")  # noqa: S311 (moments, not secrets)
    order = [fault for fault, times in campaign.faults for _ in range(times)]
    chance.shuffle(order)
    done: Counter[str] = Counter()
    extra = {key: value.format(folder=folder) for key, value in campaign.extra.items()}
    with cluster(folder, campaign.broker, extra, campaign.store) as installation:
        users = Users(installation, seed, campaign.recipes)
        users.prepare()
        users.begin(campaign.users)
        try:
            for fault in order:
                time.sleep(chance.uniform(*campaign.pause))
                done[_strike(fault, installation, chance)] += 1
                assert users.wrong == [], "\n".join(users.wrong)
        finally:
            installation.heal()
            users.finish()
        users.one(campaign.recipes[0])  # its worker sweeps what dead ones left
        jobs = invariants.check(installation)
        resumed = invariants.resumed(installation)
    seconds = round(time.monotonic() - began, 1)
    return Outcome(campaign.name, seed, dict(done), users.ended, jobs, resumed, seconds)


def _strike(fault: Fault, installation: object, chance: random.Random) -> str:
    """Do it; where there is nobody to harm yet, wait for somebody."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        did = fault(installation, chance)  # type: ignore[arg-type]
        if did is not None:
            return did
        time.sleep(0.05)
    raise AssertionError("no job came to run that could be harmed")
