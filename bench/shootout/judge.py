"""What a start shows: the old release, the new one, a mixture of both, or no start at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

OLD, NEW, MIXED, BROKEN = "old", "new", "mixed", "broken"
FATES = (OLD, NEW, MIXED, BROKEN)


@dataclass
class Tally:
    """Cut points by what the start after them showed.

    `unhealed`: those where not even the server's return brought the whole new release; `possible`: cut points
    there are, of which `judged` were played. `link`: what the start after a cut of the link showed.
    """

    name: str
    steps: int = 0
    possible: int = 0
    fates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))
    unhealed: int = 0
    link: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))

    @property
    def judged(self) -> int:
        """Cut points played."""
        return sum(self.fates.values())

    @property
    def unsafe_percent(self) -> float:
        """The share of cut points that left a mixture or no start."""
        bad = self.fates[MIXED] + self.fates[BROKEN]
        return 100 * bad / self.judged if self.judged else 0.0

    @property
    def link_unsafe(self) -> int:
        """Cuts of the link that left a mixture or no start."""
        return self.link[MIXED] + self.link[BROKEN]

    def add(self, fate: str, healed: str) -> None:
        """Count one cut point."""
        self.fates[fate] += 1
        self.unhealed += healed != NEW

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "steps": self.steps,
            "cut_points": self.possible,
            "judged": self.judged,
            **self.fates,
            "unsafe_percent": round(self.unsafe_percent, 1),
            "unhealed": self.unhealed,
            "link_cuts": sum(self.link.values()),
            "link_cuts_unsafe": self.link_unsafe,
        }


def fate(
    started: Sequence[int] | None,
    hashes: Mapping[str, str | None],
    old: Mapping[str, bytes],
    new: Mapping[str, bytes],
) -> str:
    """Judge a start by the versions that ran and by the bytes of the files."""
    if started is None:
        return BROKEN
    for name, content, version in ((OLD, old, 1), (NEW, new, 2)):
        whole = all(hashes.get(path) == sha256(data).hexdigest() for path, data in content.items())
        if whole and set(started) == {version}:
            return name
    return MIXED
