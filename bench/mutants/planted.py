"""A bug that is planted into the update's code: a change of the terminal's own source, and where it shows."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import BenchError
from bench.paths import ROOT


@dataclass(frozen=True)
class Mutant:
    """One planted bug: in `file` (below firmware/terminal), each `old` text becomes the `new` one.

    `where`: what of the campaign should show it (bench/campaign/plan.py, `near`).
    """

    name: str
    file: str
    where: str
    changes: tuple[tuple[str, str], ...]

    @property
    def frozen(self) -> str:
        """The name of the changed file in the image that has all of them."""
        return "bug_" + "".join(c if c.isalnum() else "_" for c in self.name.lower()) + ".py"

    def source(self) -> bytes:
        """The changed file. Raises: BenchError(STALE_MUTANT) when the code it changes is no longer there."""
        text = (ROOT / "firmware" / "terminal" / self.file).read_text()
        for old, new in self.changes:
            if text.count(old) != 1:
                raise BenchError(
                    "STALE_MUTANT", f"{self.name}: {self.file} has {text.count(old)} times {old!r}, not once."
                )
            text = text.replace(old, new)
        return text.encode()


def change(name: str, file: str, where: str, *changes: tuple[str, str]) -> Mutant:
    """A planted bug of one or more changed texts."""
    return Mutant(name, file, where, changes)
