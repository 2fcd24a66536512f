"""One shoot-out: everybody fetched, traced and cut, each with the same share of the time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from bench import images
from bench.errors import BenchError
from bench.shootout import fetch
from bench.shootout.judge import BROKEN, MIXED, NEW, OLD, Tally
from bench.shootout.libraries import LEFT_OUT, LIBRARIES, Library
from bench.shootout.play import LINK_CUTS, OURS, Device, Say, play_library, play_ours

SCHEMA = "tableside.shootout.ota/1"
_WIDTH = 110
CONDITIONS = (
    f"One update on MicroPython {images.MICROPYTHON_VERSION} (the process board), littlefs2 on 4 KiB sectors "
    "of NOR flash that only clears bits.",
    "A cut point is a flash that a power cut leaves: before a step, half-way through it, with some of its "
    "bits done, or behind the last; a step is at most 256 bytes programmed or erased. Equal ones count once.",
    "Each is started with the server away: the application's files are whole old, whole new, mixed, or it "
    "does not start (broken). Then it is started with the server back: `not healed` is where that did not "
    "end whole and new. Cut points count alike, though on a device an erase takes longer than a program.",
    f"Link cuts: the link is lost for good after so many bytes of the update, {LINK_CUTS} times; then it is "
    "started with the server away.",
    "The update call stands in boot.py, before the application and outside what is updated: a broken "
    "application cannot keep a library from trying again. That is the best place there is for it.",
    "Libraries get the same release of four files, 6 KB in all, from the same server, over a urequests of "
    "our own; those that replace main.py alone get it as one file, which littlefs replaces in one step.",
    "Ours gets a signed bundle of three files, 7 KB, chunk by chunk, with orders waiting; with the server "
    "away it may finish what was verified before the cut.",
    "Only what lost power or a lost link leaves is compared: not signatures, not rollback. Of the "
    "libraries only OTAmpy promises to survive a power cut.",
)


@dataclass
class Shootout:
    """What came of it. `absent`: who could not take part, with the reason."""

    seed: int
    tallies: list[tuple[Tally, Library | None]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=lambda: dict(LEFT_OUT))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [tally.to_json() | _about(library) for tally, library in self.tallies]
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "conditions": list(CONDITIONS),
            "participants": rows,
            "absent": self.absent,
        }


def _about(library: Library | None) -> dict[str, Any]:
    if library is None:
        return {"packages": [], "promise": "", "adapted": ""}
    packages = [f"{package.name} {package.version}" for package in library.packages]
    return {"packages": packages, "promise": library.promise, "adapted": library.adapted}


def chosen(names: Sequence[str]) -> list[str]:
    """The participants of these names, all for none. Raises: BenchError(USAGE)."""
    known = [OURS, *(library.name for library in LIBRARIES)]
    for name in names:
        if name not in known:
            raise BenchError("USAGE", f"{name!r} does not take part: choose from {', '.join(known)}.")
    return [name for name in known if not names or name in names]


def run(names: Sequence[str], budget_s: float, seed: int, say: Say) -> Shootout:
    """Hold it. Raises: BenchError when our own side cannot run."""
    wanted = chosen(names)
    binary = _board(say)
    result = Shootout(seed)
    end = time.monotonic() + budget_s

    def share_s() -> float:
        """An equal part of the time that is left."""
        return max(0.0, end - time.monotonic()) / max(1, len(wanted) - len(result.tallies))

    for library in [one for one in LIBRARIES if one.name in wanted]:
        try:
            device = Device(library, fetch.files_of(library))
            tally = play_library(binary, device, seed, share_s())
        except BenchError as error:
            say(f"{library.name}: {error.text}")
            result.absent[library.name] = error.text
            wanted.remove(library.name)
            continue
        result.tallies.append((tally, library))
        say(in_words(tally))
    if OURS in wanted:
        ours = play_ours(binary, seed, share_s())
        result.tallies.insert(0, (ours, None))
        say(in_words(ours))
    return result


def _board(say: Say) -> Path:
    try:
        return images.build("process", progress=say).path
    except images.ImageError as error:
        raise BenchError("NO_FIRMWARE", str(error)) from error


def in_words(tally: Tally) -> str:
    """One line of progress."""
    return f"{tally.name}: {tally.judged} of {tally.possible} cut points, {tally.unsafe_percent:.1f} % unsafe"


def text(result: Shootout) -> str:
    """The conditions, the participants, and under them the table."""
    points = [*CONDITIONS]
    for tally, library in result.tallies:
        if library is not None:
            about = _about(library)
            packages = ", ".join(about["packages"])
            points.append(f"{tally.name} ({packages}): {library.promise}. Adapted: {library.adapted}.")
    points += [f"Not here: {name}: {reason.rstrip('.')}." for name, reason in result.absent.items()]
    lines = [fill(point, _WIDTH, initial_indent="- ", subsequent_indent="  ") for point in points]
    heads = (
        "",
        "steps",
        "cut points",
        "judged",
        OLD,
        NEW,
        MIXED,
        BROKEN,
        "unsafe",
        "not healed",
        "link cuts",
        "unsafe",
    )
    lines += ["", "".join(f"{head:>18}" if not n else f"{head:>11}" for n, head in enumerate(heads))]
    for tally, _ in result.tallies:
        fates = [tally.fates[fate] for fate in (OLD, NEW, MIXED, BROKEN)]
        cells = [
            tally.steps,
            tally.possible,
            tally.judged,
            *fates,
            f"{tally.unsafe_percent:.1f} %",
            tally.unhealed,
            sum(tally.link.values()),
            tally.link_unsafe,
        ]
        lines.append(f"{tally.name:>18}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)
