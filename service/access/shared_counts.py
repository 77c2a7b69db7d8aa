"""Increments of a counter that arrive together go to the store as one.

Each gets the number that it would have had alone: of a sum that grew by n, the n who asked get the
last n numbers. While one trip to the store is under way the next ones gather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class SharedCounts:
    """Gathers increments. Used from one event loop.

    Args:
        add: adds to a counter in the store and returns the new sum.
    """

    def __init__(self, add: Callable[[str, int], Awaitable[int]]) -> None:
        self._add = add
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def increment(self, counter: str) -> int:
        """The counter's value with this increment.

        Raises whatever the store raised.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(counter, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="shared counts")
        # who goes away has been counted, and leaves the numbers of the others as they are
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, {}
                await asyncio.gather(*(self._count(*each) for each in batch.items()))
        finally:
            self._task = None

    async def _count(self, counter: str, futures: list[asyncio.Future[int]]) -> None:
        try:
            total = await self._add(counter, len(futures))
        except Exception as error:
            for future in futures:
                future.set_exception(error)
                future.exception()  # all who asked may have gone away: that is no fault
            return
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        for number, future in enumerate(futures, total - len(futures) + 1):
            future.set_result(number)
