"""Token buckets: how much one device, one table, the whole site may ask for.

Buckets are two numbers each and are created only for names the caller knows to be registered, so memory is
bounded by the number of terminals. The clock is passed in: monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_second`` tokens flow in, at most ``burst`` are kept."""

    per_second: float
    burst: float


class TokenBucket:
    """One bucket, full at first."""

    __slots__ = ("_rate", "_stamp", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = rate.burst
        self._stamp = now

    def wait_ms(self, now: float) -> int:
        """0 when a token is there now, else the milliseconds until one is."""
        rate = self._rate
        tokens = self._tokens + (now - self._stamp) * rate.per_second
        self._tokens = tokens = rate.burst if tokens > rate.burst else tokens
        self._stamp = now
        if tokens >= 1.0:
            return 0
        return max(1, int((1.0 - tokens) / rate.per_second * 1000.0) + 1)

    def take(self) -> None:
        """Use up one token; call after ``wait_ms`` returned 0."""
        self._tokens -= 1.0


LATE_S = 10.0
EARLY_S = 0.05


class Turns:
    """A rate for many names that all come at once: who is too early gets a turn of its own, first come first.

    Told to come in so many milliseconds, a name that comes then is let in, and whoever comes later queues
    behind it. So a crowd of N is through after N / rate seconds, and nobody waits longer. A turn that was
    missed by ten seconds is given up. Remembers one number per waiting name.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._gap_s = 1.0 / rate.per_second
        self._slack_s = (rate.burst - 1.0) * self._gap_s
        self._booked_to = now  # every turn before this is taken; may lie ahead of now by the slack
        self._turns: dict[str, float] = {}  # in the order of the turns

    def wait_ms(self, name: str, now: float) -> int:
        """0: it is this name's turn, and ``take`` uses it up; else the milliseconds until it is."""
        turn = self._turn(name, now)
        return 0 if now >= turn - EARLY_S else int((turn - now) * 1000.0) + 1

    def take(self, name: str) -> None:
        """Use up the turn that ``wait_ms`` has just found due."""
        del self._turns[name]

    def _turn(self, name: str, now: float) -> float:
        known = self._turns.get(name)
        if known is not None and now <= known + LATE_S:
            return known
        self._turns.pop(name, None)
        while self._turns:
            first = next(iter(self._turns))
            if now <= self._turns[first] + LATE_S:
                break
            del self._turns[first]
        turn = max(now, self._booked_to - self._slack_s)
        self._booked_to = max(self._booked_to, now) + self._gap_s
        self._turns[name] = turn
        return turn


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server. ``frame`` bounds what a device may make the server verify, before any MAC."""

    frame: Rate = Rate(4000.0, 8000.0)
    op_device: Rate = Rate(1500.0, 3000.0)
    op_table: Rate = Rate(1500.0, 3000.0)
    op_site: Rate = Rate(20_000.0, 40_000.0)
    hello_device: Rate = Rate(2.0, 20.0)
    hello_site: Rate = Rate(50.0, 200.0)
    login: Rate = Rate(1.0, 10.0)
    update: Rate = Rate(100.0, 200.0)
    telemetry: Rate = Rate(0.5, 5.0)


class RateLimiter:
    """All buckets of a site. Not thread-safe: lives on the event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        now = clock()
        self._op_site = TokenBucket(limits.op_site, now)
        self._hello_turns = Turns(limits.hello_site, now)
        self._frame: dict[str, TokenBucket] = {}
        self._op_device: dict[str, TokenBucket] = {}
        self._op_table: dict[str, TokenBucket] = {}
        self._hello_device: dict[str, TokenBucket] = {}
        self._login: dict[str, TokenBucket] = {}
        self._update: dict[str, TokenBucket] = {}
        self._telemetry: dict[str, TokenBucket] = {}

    def frame(self, device: str) -> int:
        """Ask for the verification of one frame. Returns 0, or the milliseconds to wait."""
        return self._take(self._bucket(self._frame, device, self._limits.frame))

    def op(self, device: str, table: str) -> int:
        """Ask for one verified op. Returns 0, or the milliseconds to wait."""
        return self._take(
            self._bucket(self._op_device, device, self._limits.op_device),
            self._bucket(self._op_table, table, self._limits.op_table),
            self._op_site,
        )

    def hello(self, device: str) -> int:
        """Ask for one handshake, before any RSA work. Returns 0, or the milliseconds to wait: of the site's
        rate, until a turn that is kept for this device.
        """
        own = self._bucket(self._hello_device, device, self._limits.hello_device)
        now = self._clock()
        wait_ms = own.wait_ms(now) or self._hello_turns.wait_ms(device, now)
        if wait_ms == 0:
            own.take()
            self._hello_turns.take(device)
        return wait_ms

    def login(self, device: str) -> int:
        """Ask for one password hash; unknown names share the bucket "". Returns 0, or the milliseconds to
        wait.
        """
        return self._take(self._bucket(self._login, device, self._limits.login))

    def update(self, device: str) -> int:
        """Ask for one request of update data. Returns 0, or the milliseconds to wait."""
        return self._take(self._bucket(self._update, device, self._limits.update))

    def telemetry(self, device: str) -> int:
        """Ask for one telemetry frame. Returns 0, or the milliseconds to wait."""
        return self._take(self._bucket(self._telemetry, device, self._limits.telemetry))

    def forget(self, device: str) -> None:
        """Drop the buckets of a device that is no longer registered."""
        for buckets in (
            self._frame,
            self._op_device,
            self._hello_device,
            self._login,
            self._update,
            self._telemetry,
        ):
            buckets.pop(device, None)

    def _bucket(self, buckets: dict[str, TokenBucket], name: str, rate: Rate) -> TokenBucket:
        bucket = buckets.get(name)
        if bucket is None:
            bucket = buckets[name] = TokenBucket(rate, self._clock())
        return bucket

    def _take(self, *buckets: TokenBucket) -> int:
        now = self._clock()
        longest_ms = 0
        for bucket in buckets:
            wait_ms = bucket.wait_ms(now)
            if wait_ms > longest_ms:
                longest_ms = wait_ms
        if longest_ms == 0:
            for bucket in buckets:
                bucket.take()
        return longest_ms
