"""All randomness of a run, derived from its seed by name: a new consumer never disturbs another's draws."""

from __future__ import annotations

import random
from hashlib import sha256


class Seeded:
    """A named stream of randomness. Also the Entropy that server and firmware are given."""

    def __init__(self, seed: int, name: str) -> None:
        self._seed = seed
        self._name = name
        digest = sha256(f"{seed}/{name}".encode()).digest()
        self.draw = random.Random(int.from_bytes(digest, "big"))

    def fork(self, name: str) -> Seeded:
        """The stream of a part of this one."""
        return Seeded(self._seed, f"{self._name}/{name}")

    def random(self, count: int) -> bytes:
        """``count`` bytes."""
        return self.draw.randbytes(count)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.draw.random() < probability

    def about(self, mean: float) -> float:
        """A waiting time with this mean, memoryless, never under a thousandth of it."""
        return max(mean * 0.001, self.draw.expovariate(1.0 / mean))
