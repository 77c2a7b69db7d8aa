"""The next batches, made in a thread of their own while the model works on the one before.

Decoding, transforming and gathering then cost time only where they take longer than the model.
The thread makes batches in the order they are asked for and shares no random state with anyone
(see `engine.data.draws`), so what comes out is what would come out without it, bit for bit.

An error in the thread is raised where its batch would have been, after the batches before it.
Whoever stops early, by an error, a `break` or the end of the job, closes the iterator: the thread
then ends after the batch it is at, and is waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

_AHEAD = 2
_LOOK_SECONDS = 0.1


class _End:
    """What the thread says last; with the error it ended by."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Thread(threading.Thread, Generic[T]):
    def __init__(self, source: Iterator[T], ahead: int) -> None:
        super().__init__(name="prefetch", daemon=True)
        self._source = source
        self.ready: Queue[T | _End] = Queue(ahead)
        self.stopped = threading.Event()

    def run(self) -> None:
        end = _End(None)
        try:
            for item in self._source:
                if not self._put(item):
                    return
        # It is raised again where the batch is waited for.
        except BaseException as error:
            end = _End(error)
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return True
        return False


def prefetched(source: Iterator[T], ahead: int = _AHEAD) -> Generator[T]:
    """The items of an iterator, made up to `ahead` before they are asked for.

    Args:
        source: runs in the thread only.
        ahead: items that wait, at most; one more is being made.
    """
    thread = _Thread(source, ahead)
    thread.start()
    try:
        while True:
            item = thread.ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        thread.stopped.set()
        while True:  # room for an item that is being put
            try:
                thread.ready.get_nowait()
            except Empty:
                break
        thread.join()
