"""Reads that arrive together share one look, and none gets what was read before it came."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from service.shared_reads import SharedReads


class Table:
    """A table that can be made to wait, and counts who looks."""

    def __init__(self) -> None:
        self.rows = {"a": 1, "b": 2}
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.looking = threading.Event()

    def read(self, keys: Sequence[str]) -> dict[str, int]:
        self.batches.append(list(keys))
        seen = {key: self.rows[key] for key in keys if key in self.rows}
        self.looking.set()
        assert self.open.wait(30)
        return seen


async def looked(table: Table) -> None:
    assert await asyncio.to_thread(table.looking.wait, 30)
    table.looking.clear()


def test_a_request_never_gets_what_was_read_before_it_came() -> None:
    async def run() -> None:
        table = Table()
        reads = SharedReads(table.read)
        table.open.clear()
        early = asyncio.create_task(reads.get("a"))
        await looked(table)
        table.rows["a"] = 10  # somebody writes while the first read is under way
        late = [asyncio.create_task(reads.get(key)) for key in ("a", "b", "a", "gone")]
        await asyncio.sleep(0)
        table.open.set()
        assert await early == 1
        assert await asyncio.gather(*late) == [10, 2, 10, None]
        assert table.batches == [["a"], ["a", "b", "gone"]]

    asyncio.run(run())


def test_a_client_that_leaves_takes_nothing_from_the_others() -> None:
    async def run() -> None:
        table = Table()
        reads = SharedReads(table.read)
        table.open.clear()
        leaving, staying = (asyncio.create_task(reads.get("a")) for _ in range(2))
        await looked(table)
        leaving.cancel()
        await asyncio.sleep(0)
        table.open.set()
        assert await staying == 1
        with pytest.raises(asyncio.CancelledError):
            await leaving

    asyncio.run(run())


def test_a_failed_read_fails_those_who_asked_and_nobody_after() -> None:
    async def run() -> None:
        broken = [True]

        def read(keys: Sequence[str]) -> dict[str, int]:
            if broken[0]:
                raise ConnectionError("the database is away")
            return dict.fromkeys(keys, 7)

        reads = SharedReads(read)
        both = await asyncio.gather(reads.get("a"), reads.get("b"), return_exceptions=True)
        assert [type(one) for one in both] == [ConnectionError] * 2
        broken[0] = False
        assert await reads.get("a") == 7

    asyncio.run(run())


def test_a_batch_has_its_limit() -> None:
    async def run() -> None:
        table = Table()
        reads = SharedReads(table.read, largest=2)
        await asyncio.gather(*(reads.get(key) for key in ("a", "b", "c")))
        assert table.batches == [["a", "b"], ["c"]]

    asyncio.run(run())
