"""Bugs planted into the update of firmware images: each has to be caught by the campaign of that layer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.campaign import image_plan, images
from bench.campaign.image_player import FIRMWARE, Releases
from bench.errors import BenchError

SCHEMA = "tableside.mutants/1"
_SECOND_CUTS = 2
_LONGEST_S = 60.0


@dataclass(frozen=True)
class Bug:
    """One planted bug: in `file` (below firmware/terminal) the `old` text becomes the `new` one."""

    name: str
    file: str
    old: str
    new: str

    def source(self) -> str:
        """The changed file. Raises: BenchError(STALE_MUTANT) when the code it changes is no longer there."""
        text = (FIRMWARE / "terminal" / self.file).read_text()
        if text.count(self.old) != 1:
            raise BenchError(
                "STALE_MUTANT",
                f"{self.name}: {self.file} has {text.count(self.old)} times {self.old!r}, not once.",
            )
        return text.replace(self.old, self.new)


BUGS = (
    Bug(
        "confirmed on record before the bootloader knows",
        "ota/image_agent.py",
        "                images.keep()\n                self._store(states.confirmed(state))",
        "                self._store(states.confirmed(state))\n                images.keep()",
    ),
    Bug(
        "otadata not read back after confirming",
        "ota/image.py",
        "        if not self.is_kept():\n            raise OtaError(states.NOT_SELECTED)",
        "        return",
    ),
    Bug(
        "reports the release it should run",
        "ota/image_agent.py",
        "state.version if images.running == state.slot else state.other_version",
        "max(state.version, state.other_version)",
    ),
    Bug(
        "fallback not noticed",
        "ota/image_states.py",
        "    if running == target:\n        state = states.start_trial",
        "    if True:\n        state = states.start_trial",
    ),
    Bug(
        "image that fell back not quarantined",
        "ota/image_states.py",
        "        return states.rolled_back(state, states.FELL_BACK)",
        "        return states.rearmed(state)",
    ),
    Bug(
        "older choice of the slot taken for the new one",
        "ota/image_states.py",
        "before.sequence > entry.sequence",
        "False",
    ),
    Bug(
        "what is chosen already chosen again",
        "ota/image.py",
        "        if self._selects(slot):\n            return",
        "        if False:\n            return",
    ),
    Bug(
        "image not read back before it is armed",
        "ota/image.py",
        "        return found == manifest.files[0][2]",
        "        return True or found",
    ),
    Bug(
        "next chunk written where the last one was",
        "ota/image.py",
        "        self._dev.writeblocks(self.next_chunk, data)",
        "        self._dev.writeblocks(max(0, self.next_chunk - 1), data)",
    ),
    Bug(
        "image that runs overwritten",
        "ota/image.py",
        "        self._dev = images.app(slot)",
        "        self._dev = images.app(images.running)",
    ),
    Bug(
        "first record names the other partition",
        "ota/image_states.py",
        "        return state.but(slot=running), running",
        "        return state.but(slot=1 - running), running",
    ),
)


@contextmanager
def planted(bug: Bug) -> Iterator[Path]:
    """A copy of the firmware's folder with one bug in it. Raises: BenchError(STALE_MUTANT)."""
    with tempfile.TemporaryDirectory(prefix="tableside-mutant-") as name:
        firmware = Path(name, "firmware")
        for part in ("terminal", "boards"):
            leave = shutil.ignore_patterns("__pycache__", "*.c", "*.h")
            shutil.copytree(FIRMWARE / part, firmware / part, ignore=leave)
        (firmware / "terminal" / bug.file).write_text(bug.source())
        yield firmware


def find(bug: Bug, releases: Releases, seed: int = 1, workers: int = 1) -> dict[str, Any]:
    """Plant one bug and look for it -> {"name", "caught", "by", "seconds"}.

    Raises: BenchError(STALE_MUTANT).
    """
    began = time.monotonic()
    with planted(bug) as firmware:
        by = _failure(releases, firmware, seed, workers)
    seconds = round(time.monotonic() - began, 1)
    return {"name": bug.name, "caught": bool(by), "by": by[:160], "seconds": seconds}


def _failure(releases: Releases, firmware: Path, seed: int, workers: int) -> str:
    """What gave the bug away, empty if nothing did within the time there is."""
    try:
        with images.crew(releases, workers, firmware) as crew:
            tasks = image_plan.near(crew.goldens(), seed, _SECOND_CUTS)
            tally = images.campaign(crew, images.blank_tally(crew, seed), tasks, _LONGEST_S, stop_at=1)
    except BenchError as error:
        return f"not even the undisturbed update works: {error.text}"
    if not tally.failed:
        return ""
    first = tally.failed[0]
    return f"{first.failures[0].oracle} at {first.line}: {first.failures[0].text}"


def hunt(
    releases: Releases, seed: int, workers: int, budget_s: float | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Plant every bug of this layer, `budget_s` for all of them -> the table as JSON values.

    A bug whose turn does not come counts as not caught. Raises: BenchError.
    """
    deadline = None if budget_s is None else time.monotonic() + budget_s
    rows = []
    for bug in BUGS:
        if deadline is not None and time.monotonic() >= deadline:
            row = {"name": bug.name, "caught": False, "by": "", "seconds": 0.0}
        else:
            row = find(bug, releases, seed, workers)
        rows.append(row)
        found = "caught  " if row["caught"] else "SURVIVED"
        say(f"{found} {row['seconds']:6.1f} s  {row['name']:50}  {row['by']}")
    return {"schema": SCHEMA, "seed": seed, "mutants": rows}
