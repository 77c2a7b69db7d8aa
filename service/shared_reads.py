"""Reads that arrive together share one look at the database.

A request never gets what was read before it came: it joins the next read, which begins after it
joined. So what anyone wrote before is seen, whichever process wrote it, and nothing is kept that
could be stale. While one read runs the next one gathers, so there are as many queries as the
database can answer one after the other, however many ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

from anyio import to_thread

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LARGEST = 200


class SharedReads(Generic[K, V]):
    """Gathers keys and reads them in a thread, one batch at a time. Used from one event loop.

    Args:
        read: the values of several keys; leaves out what is not there.
        largest: keys of one batch; more wait for the one after.
    """

    def __init__(
        self, read: Callable[[Sequence[K]], Mapping[K, V]], largest: int = _LARGEST
    ) -> None:
        self._read = read
        self._largest = largest
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The value as it is after this call began; None when there is none.

        Raises whatever the read raised.
        """
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="shared reads")
        # a client that goes away takes nothing from the others who wait for the same
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = {key: self._waiting[key] for key in islice(self._waiting, self._largest)}
                for key in batch:
                    del self._waiting[key]
                await self._serve(batch)
        finally:
            self._task = None

    async def _serve(self, batch: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await to_thread.run_sync(self._read, list(batch))
        except Exception as error:
            for future in batch.values():
                future.set_exception(error)
                future.exception()  # all who asked may have gone away: that is no fault
            return
        except BaseException:
            for future in batch.values():
                future.cancel()
            raise
        for key, future in batch.items():
            future.set_result(found.get(key))
