"""Increments that go to the store together are counted as if each had gone alone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.shared_counts import SharedCounts


class Store:
    """Counts, and takes its time."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.trips = 0
        self.fails = False

    async def add(self, counter: str, more: int) -> int:
        self.trips += 1
        self.sums[counter] += more
        found = self.sums[counter]
        await asyncio.sleep(0)
        if self.fails:
            raise ConnectionError
        return found


@given(rounds=st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=6))
def test_everyone_gets_a_number_of_its_own(rounds: list[list[str]]) -> None:
    async def run() -> tuple[Store, dict[str, list[int]]]:
        store = Store()
        counts = SharedCounts(store.add)
        got: dict[str, list[int]] = {name: [] for name in "abc"}

        async def one(name: str) -> None:
            got[name].append(await counts.increment(name))

        tasks = []
        for asked in rounds:
            tasks += [asyncio.create_task(one(name)) for name in asked]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return store, got

    store, got = asyncio.run(run())
    for name, numbers in got.items():
        assert sorted(numbers) == list(range(1, store.sums[name] + 1))
        assert store.sums[name] == sum(asked.count(name) for asked in rounds)


def test_a_crowd_makes_two_trips() -> None:
    async def run() -> int:
        store = Store()
        counts = SharedCounts(store.add)
        first = asyncio.create_task(counts.increment("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        numbers = await asyncio.gather(*(counts.increment("a") for _ in range(200)))
        assert await first == 1
        assert sorted(numbers) == list(range(2, 202))
        return store.trips

    assert asyncio.run(run()) == 2


def test_a_store_that_is_away_fails_those_who_asked_and_no_one_later() -> None:
    async def run() -> None:
        store = Store()
        store.fails = True
        counts = SharedCounts(store.add)
        asked = [asyncio.create_task(counts.increment("a")) for _ in range(3)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in done] == [ConnectionError] * 3
        store.fails = False
        assert await counts.increment("a") == 4

    asyncio.run(run())


def test_who_goes_away_takes_nothing_from_the_others() -> None:
    async def run() -> None:
        counts = SharedCounts(Store().add)
        gone = asyncio.create_task(counts.increment("a"))
        stays = asyncio.create_task(counts.increment("a"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await stays == 2

    asyncio.run(run())
