"""Clock and entropy as this package needs them; a simulation passes its own."""

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time for records and expiry."""

    def unix_time(self) -> int:
        """Return whole seconds since 1970-01-01 UTC."""
        ...


class Entropy(Protocol):
    """Randomness."""

    def random(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
        ...


class SystemClock:
    """The operating system's clock."""

    def unix_time(self) -> int:
        """Return whole seconds since 1970-01-01 UTC."""
        return int(time.time())


class SystemEntropy:
    """The operating system's random generator."""

    def random(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
        return os.urandom(count)
