"""Plays the cut points of one library's update, and of ours, on the process board."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench.boards.flashmap import FLASH_BYTES, REGIONS, SECTOR_BYTES
from bench.campaign import world
from bench.campaign.machine import RESETS, Life, Machine
from bench.campaign.trace import FlashState, Step, Tear, Trace
from bench.errors import BenchError
from bench.paths import ROOT
from bench.shootout import release
from bench.shootout.judge import BROKEN, MIXED, NEW, OLD, Tally, fate
from bench.shootout.libraries import Library
from bench.suites import volume

DEVICE = ROOT / "firmware" / "boards" / "process" / "shootout.py"
BOOT = b"import board\nexec(board.options()['text'])\n"
OURS = "tableside"
_EVENT = "@shootout "
_MOST_LIVES = 6
LINK_CUTS = 24
_SEEDS = 1 << 31

Say = Callable[[str], None]
Judge = Callable[[bool], str]  # a start, with the server there or away -> what it shows


def cuts(state: FlashState, steps: tuple[Step, ...], random: Random) -> Iterator[FlashState]:
    """Every flash a cut leaves: before each step, inside it (a prefix; some of its bits), behind the last."""
    for step in steps:
        yield FlashState.copy_of(state)
        for tear in (Tear(len(step.data) // 2), Tear(0, random.randrange(1, _SEEDS))):
            inside = FlashState.copy_of(state)
            inside.apply([state.torn(step, tear)])
            yield inside
        state.apply([step])
    yield state


def distinct(base: bytes, steps: tuple[Step, ...], seed: int) -> list[FlashState]:
    """The different ones among them, in an order that shows some of everything early."""
    random = Random(seed)
    found = {state.hash: state for state in cuts(FlashState(base), steps, random)}
    states = list(found.values())
    random.shuffle(states)
    return states


def play(
    tally: Tally, machine: Machine, base: bytes, trace: Trace, seed: int, end: float, judge: Judge
) -> None:
    """Judge as many cut points as there is time for, each with the server away and then back."""
    state = FlashState(base)
    states = distinct(state.base, trace.steps, seed)
    tally.steps, tally.possible = len(trace.steps), len(states)
    for cut in states:
        machine.load_state(cut)
        tally.add(judge(False), judge(True))
        if time.monotonic() > end:
            return


# ---------------------------------------------------------------- a library


@dataclass(frozen=True)
class Device:
    """A device that runs the first version and whose server has the second. `lib`: below /lib on it."""

    library: Library
    lib: Mapping[str, bytes]

    @property
    def old(self) -> dict[str, bytes]:
        """The application's files before the update."""
        return release.files(1, self.library.is_single)

    @property
    def new(self) -> dict[str, bytes]:
        """The application's files after it."""
        return release.files(2, self.library.is_single)

    def served(self) -> tuple[bytes, dict[str, list[int]]]:
        """The server's bytes, as they lie behind the flash map, and where each URL path's are."""
        data, places = bytearray(), {}
        for path, content in self.library.served(2, self.new).items():
            places[path] = [FLASH_BYTES + len(data), len(content)]
            data += content
        data += b"\xff" * (-len(data) % SECTOR_BYTES)
        return bytes(data), places

    def options(
        self, places: Mapping[str, list[int]], call: bool, limit: int | None = None
    ) -> dict[str, Any]:
        """The boot options of one start; `limit`: bytes until the link is cut."""
        names = list(self.new)
        job = {
            "boot": self.library.boot,
            "call": self.library.call.replace("FILES", repr(names)) if call else "",
            "after": self.library.after,
            "served": places,
            "limit": limit,
            "files": names,
        }
        return {"repl": True, "text": DEVICE.read_text(), "shootout": job}

    def image(self) -> bytes:
        """Its flash at the beginning: the first version, the library, and what that keeps."""
        kept = self.library.state(1, self.old)
        files = {"boot.py": BOOT, **self.old, **kept, **{f"lib/{name}": c for name, c in self.lib.items()}}
        image, region = bytearray(b"\xff" * FLASH_BYTES), REGIONS["vfs"]
        image[region.start : region.start + region.size] = volume.made(files, region.size)
        return bytes(image)


def play_library(binary: Path, device: Device, seed: int, budget_s: float) -> Tally:
    """Trace a library's update and cut it everywhere, as far as the time goes.

    Raises: BenchError(NO_GOLDEN_RUN) when not even the undisturbed update works.
    """
    data, places = device.served()
    with Machine(binary, data) as machine:

        def start(served: bool, call: bool, limit: int | None = None) -> Life:
            return machine.live({}, device.options(places if served else {}, call, limit))

        def follow(served: bool, limit: int | None = None) -> list[Life]:
            lives = [start(served, served, limit)]
            while lives[-1].exit_code in RESETS and len(lives) < _MOST_LIVES:
                lives.append(start(served, False, limit))
            machine.unplug()
            return lives

        def judge(served: bool) -> str:
            return shown(follow(served)[-1], device)

        machine.load(device.image())
        if judge(False) != OLD:
            raise BenchError("NO_GOLDEN_RUN", f"{device.library.name}: the first version does not start.")
        base = machine.image()
        machine.load(base)
        golden = follow(True)
        if shown(golden[-1], device) != NEW:
            said = golden[-1].console.strip().splitlines()[-1:] or ["nothing"]
            raise BenchError("NO_GOLDEN_RUN", f"{device.library.name}: no update: {said[0][:200]}")
        tally = Tally(device.library.name)
        trace = Trace.joined([life.trace for life in golden])
        size = sum(sum(told["passed"] for told in telling(life) if "passed" in told) for life in golden)
        for number in range(LINK_CUTS):
            machine.load(base)
            follow(True, size * number // LINK_CUTS)
            tally.link[judge(False)] += 1
        play(tally, machine, base, trace, seed, time.monotonic() + budget_s, judge)
    return tally


def telling(life: Life) -> list[dict[str, Any]]:
    """What a start told."""
    found = []
    for line in life.console.splitlines():
        if line.startswith(_EVENT):
            try:
                found.append(json.loads(line[len(_EVENT) :]))
            except ValueError:
                continue  # the power failed while it was written
    return found


def shown(life: Life, device: Device) -> str:
    """What a start showed."""
    if life.exit_code == 0:
        for told in telling(life):
            if "files" in told:
                return fate(told["started"], told["files"], device.old, device.new)
    return BROKEN


# ---------------------------------------------------------------- ours


def play_ours(binary: Path, seed: int, budget_s: float) -> Tally:
    """The same for our own update, as bench/campaign makes it: signed, by chunks, with orders waiting."""
    place = world.build(binary)
    old, new = place.releases["old"], place.releases["new"]
    with place.machine() as machine:

        def judge(served: bool) -> str:
            for number in range(_MOST_LIVES):
                life = machine.live(place.script("new" if served else None, seed=70 + number))
                if life.exit_code not in RESETS:
                    break
            machine.unplug()
            told = life.first("ended")
            if told is None:
                return BROKEN
            for name, one in ((OLD, old), (NEW, new)):
                if (told["ended"], told["files"]) == (one.version, one.files):
                    return name
            return MIXED

        tally = Tally(OURS)
        trace = place.goldens["new"].trace
        messages = place.goldens["new"].messages
        for number in range(LINK_CUTS):
            machine.load(place.base)
            machine.live(place.script("new", seed=70, cut=1 + messages * number // LINK_CUTS, after=False))
            machine.unplug()
            tally.link[judge(False)] += 1
        play(tally, machine, place.base, trace, seed, time.monotonic() + budget_s, judge)
    return tally
