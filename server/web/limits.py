"""How often one address, one token, one device may call, and the headers that say so.

Sliding-window counters of the ``limits`` package: constant memory per key. The number of keys is bounded
too: an address that finds the table full shares one common counter until others have been idle for a window.
Headers follow the IETF draft "RateLimit header fields for HTTP".
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

MAX_KEYS = 8192
_OVERFLOW = "others"


@dataclass(frozen=True, slots=True)
class WebLimits:
    """Calls per window of each kind of caller."""

    address: RateLimitItem = field(default_factory=lambda: RateLimitItemPerSecond(2000, 10))
    failures: RateLimitItem = field(default_factory=lambda: RateLimitItemPerMinute(30))
    token: RateLimitItem = field(default_factory=lambda: RateLimitItemPerSecond(1000, 10))
    device: RateLimitItem = field(default_factory=lambda: RateLimitItemPerSecond(1000, 10))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a limiter says about one call: allowed or not, and how much is left for how many seconds."""

    policy: str
    quota: int
    window_s: int
    allowed: bool
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """The fields of the answer."""
        found = {
            "RateLimit-Policy": f'"{self.policy}";q={self.quota};w={self.window_s}',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={self.reset_s}',
        }
        if not self.allowed:
            found["Retry-After"] = str(max(1, self.reset_s))
        return found


class _Keys:
    """At most ``most`` names; the longest idle one makes room once its window is over."""

    def __init__(self, most: int, idle_s: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._idle_s = idle_s
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def admit(self, key: str) -> str:
        now = self._clock()
        if key not in self._seen and len(self._seen) >= self._most:
            oldest, seen = next(iter(self._seen.items()))
            if now - seen < self._idle_s:
                return _OVERFLOW
            del self._seen[oldest]
        self._seen[key] = now
        self._seen.move_to_end(key)
        return key

    def __len__(self) -> int:
        return len(self._seen)


class WebLimiter:
    """All counters of the API. Lives on the event loop."""

    def __init__(
        self, limits: WebLimits, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._items = {
            "address": limits.address,
            "failures": limits.failures,
            "token": limits.token,
            "device": limits.device,
        }
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._keys = {
            policy: _Keys(max_keys, 2.0 * item.get_expiry(), clock) for policy, item in self._items.items()
        }

    async def take(self, policy: str, key: str) -> Verdict:
        """Count one call of ``key`` under a policy."""
        item, name = self._items[policy], self._keys[policy].admit(key)
        allowed = await self._limiter.hit(item, policy, name)
        return await self._verdict(policy, item, name, allowed)

    async def look(self, policy: str, key: str) -> Verdict:
        """What ``take`` would say, without counting."""
        item, name = self._items[policy], self._keys[policy].admit(key)
        return await self._verdict(policy, item, name, await self._limiter.test(item, policy, name))

    async def _verdict(self, policy: str, item: RateLimitItem, name: str, allowed: bool) -> Verdict:
        stats = await self._limiter.get_window_stats(item, policy, name)
        reset_s = max(0, math.ceil(stats.reset_time - time.time()))
        return Verdict(
            policy,
            item.amount,
            item.get_expiry(),
            allowed,
            max(0, stats.remaining),
            min(reset_s, item.get_expiry()),
        )

    @property
    def keys(self) -> int:
        """How many names are remembered over all policies."""
        return sum(len(keys) for keys in self._keys.values())
