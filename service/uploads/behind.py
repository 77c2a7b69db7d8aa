"""One piece of work in a thread while the caller goes on: receiving and storing overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Behind:
    """At most one call in a thread; its error reaches the caller at its next call here."""

    def __init__(self) -> None:
        self._running: asyncio.Future[None] | None = None

    async def start(self, work: Callable[[bytes], None], data: bytes) -> None:
        """Begin the work as soon as the work before has ended."""
        await self.finish()
        self._running = asyncio.get_running_loop().run_in_executor(None, work, data)

    async def finish(self) -> None:
        """Wait for the end of the work and pass its error on."""
        if self._running is not None:
            await self.settle()
            done, self._running = self._running, None
            done.result()

    async def settle(self) -> None:
        """Wait for the end of the work, whatever it is."""
        if self._running is not None:
            # not awaited itself: that would hand a cancellation on to it, and the thread, which
            # nothing can stop, would go on writing behind our back
            await asyncio.wait({self._running})
