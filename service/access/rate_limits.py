"""How many requests a key, or an address without a key, may send a minute.

Windows are fixed and begin with the minute, so one increment of a counter is all a request costs,
and requests that arrive together share it.
Counters lie in Redis, where the processes of the API share them, or in the process. A Redis that is
away stops nobody: counting goes on in the process, and Redis is asked again after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError
from redis.exceptions import RedisError

from persistence.settings import Settings
from service.access.shared_counts import SharedCounts
from service.logs import logger
from service.problems import ProblemError

WINDOW_SECONDS = 60
_log = logger("secateur.rate_limits")
_PAUSE_SECONDS = 10.0
_REDIS_TIMEOUT_SECONDS = 0.25


@dataclass(frozen=True)
class Standing:
    """Where someone stands in the window under way."""

    limit: int
    used: int
    resets_in: int

    @property
    def exceeded(self) -> bool:
        """Whether this request was one too many."""
        return self.used > self.limit

    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers)."""
        left = max(self.limit - self.used, 0)
        return {
            "RateLimit-Policy": f'"requests";q={self.limit};w={WINDOW_SECONDS}',
            "RateLimit": f'"requests";r={left};t={self.resets_in}',
        }


class TooManyRequests(ProblemError):
    """The window's requests are used up."""

    status = 429
    type = "too-many-requests"
    title = "Too many requests"

    def __init__(self, standing: Standing, of: str) -> None:
        super().__init__(
            f"{of} may send {standing.limit} requests in {WINDOW_SECONDS} s.",
            hint=f"Go on in {standing.resets_in} s. `?wait=` and event streams replace polling.",
            headers={"Retry-After": str(standing.resets_in), **standing.headers()},
        )


class RateLimits:
    """The counters.

    Args:
        settings: the limits and where the counters lie.
        clock: seconds since the epoch.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._per_key = settings.rate_limit_per_minute
        self._failures = settings.failed_keys_per_minute
        self._clock = clock
        self._own = MemoryStorage()
        self._shared: SharedCounts | None = None
        self._paused_until = 0.0
        url = settings.resolved_rate_limit_url
        if url is not None:
            storage = RedisStorage(
                f"async+{url}",
                implementation="redispy",
                key_prefix="secateur-rates",
                socket_timeout=_REDIS_TIMEOUT_SECONDS,
                socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
            )
            self._shared = SharedCounts(
                lambda counter, more: storage.incr(counter, WINDOW_SECONDS, more)
            )

    async def of_key(self, key_id: str) -> Standing | None:
        """Count a request of a key; None when there is no limit."""
        return await self._count(f"key/{key_id}", self._per_key)

    async def of_failure(self, address: str) -> Standing | None:
        """Count a request from an address that carried no key that opens."""
        return await self._count(f"address/{address}", self._failures)

    async def _count(self, who: str, limit: int) -> Standing | None:
        if limit == 0:
            return None
        now = self._clock()
        window = int(now // WINDOW_SECONDS)
        used = await self._increment(f"{who}/{window}")
        return Standing(limit, used, max(1, round((window + 1) * WINDOW_SECONDS - now)))

    async def _increment(self, counter: str) -> int:
        if self._shared is not None and self._clock() >= self._paused_until:
            try:
                return await self._shared.increment(counter)
            except (RedisError, StorageError, OSError) as error:
                # the error may name the address with its password; its kind is enough
                _log.warning(
                    "rate limits are counted in this process for a while: Redis is away",
                    error=type(error).__name__,
                )
                self._paused_until = self._clock() + _PAUSE_SECONDS
        return await self._own.incr(counter, WINDOW_SECONDS)
