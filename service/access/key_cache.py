"""Keys verified a moment ago, so that a client's next request needs no database.

A key that is revoked stays open in other processes for as long as an entry lives; in this one
it is forgotten at once. Entries are found by the SHA-256 of the secret; the secret is not kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

_ENTRIES = 4096


@dataclass(frozen=True)
class Caller:
    """The tenant an API key belongs to, and what the key may do."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Entry:
    caller: Caller
    expires_at: datetime | None
    until: float


class KeyCache:
    """Callers by the hash of their secret. Used from one event loop and from threads: every
    step is one operation of a dictionary.

    Args:
        seconds: how long an entry lives; 0 keeps none.
        entries: how many are kept; the oldest go first.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        seconds: float,
        entries: int = _ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._limit = entries
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.generation = 0
        """Grows with every change of a key; note it before reading the database for `put`."""

    def get(self, digest: bytes, now: datetime) -> Caller | None:
        """The caller, if it was verified lately and has not expired since."""
        entry = self._entries.get(digest)
        if entry is None or entry.until <= self._clock():
            return None
        if entry.expires_at is not None and entry.expires_at <= now:
            return None
        return entry.caller

    def put(
        self, digest: bytes, caller: Caller, expires_at: datetime | None, generation: int
    ) -> None:
        """Keep a caller that was verified just now, unless a key was changed in the meantime."""
        if self._seconds <= 0 or generation != self.generation:
            return
        self._entries[digest] = _Entry(caller, expires_at, self._clock() + self._seconds)
        self._entries.move_to_end(digest)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def forget(self, key_id: str) -> None:
        """Drop what is known of a key that was changed."""
        self.generation += 1
        known = list(self._entries.items())
        for digest, entry in known:
            if entry.caller.key_id == key_id:
                self._entries.pop(digest, None)

    def __len__(self) -> int:
        return len(self._entries)
