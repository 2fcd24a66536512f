"""Plays a campaign on several workers and adds it up.

The order of tasks is fixed, results are taken in that order, and a budget only decides how far it goes: with
any number of workers the first n tasks give the same states and the same verdicts.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from bench.campaign import lines, plan
from bench.campaign.lines import Line
from bench.campaign.machine import working_folder
from bench.campaign.oracles import Failure
from bench.campaign.plan import Task
from bench.campaign.player import Outcome, Player
from bench.campaign.wire_cases import KILL, WireVerdict
from bench.campaign.world import World

SCHEMA = "tableside.campaign/1"
_PR_SET_PDEATHSIG = 1
_AHEAD = 4  # tasks given out for each worker, so that none waits

_player: list[Player] = []  # the one of this worker process
_stopping: list[Event] = []  # set when nobody wants its results any more


@dataclass(frozen=True)
class Played:
    """One line with its verdict, as it comes back from a worker."""

    line: Line
    hash: int
    failures: tuple[Failure, ...]
    is_second: bool


@dataclass(frozen=True)
class Batch:
    """A first line and its second cuts, with the seconds of computing and the starts they took; `whole`: all
    of them.
    """

    lines: list[Played]
    cpu_s: float
    boots: int
    whole: bool


@dataclass
class Tally:
    """What a campaign has seen so far. `cpu_s`: seconds of computing by all workers and their boards;
    `hashes`: every flash that was booted.
    """

    seed: int
    board: str
    golden: dict[str, int]
    cpu_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Played] = field(default_factory=list)
    seconds: float = 0.0
    is_complete: bool = False
    wire: list[WireVerdict] = field(default_factory=list)
    hashes: set[int] = field(default_factory=set)

    @property
    def failures(self) -> list[tuple[str, tuple[Failure, ...]]]:
        """Every line that failed, with the guarantees it broke."""
        found = [(str(one.line), one.failures) for one in self.failed]
        return found + [(str(one.case), one.failures) for one in self.wire if one.failures]

    def add_wire(self, verdict: WireVerdict) -> None:
        """Count one fault of an update over real MQTT; no flash state of its own."""
        if verdict.happened or verdict.failures:
            self.wire.append(verdict)
            is_kill = verdict.case.kind == KILL
            self.counts.update(["server_kills"] if is_kill else ["link_cuts", "mqtt_packets_cut"])

    def add(self, played: Played) -> None:
        """Count one line; a flash that was there before counts once."""
        if played.failures:
            self.failed.append(played)
        kind = played.line.faults[-1].kind
        if kind in lines.FLASH_FAULTS:
            if played.hash in self.hashes:
                return
            self.hashes.add(played.hash)
        self.counts["states"] += 1
        self.counts[_COUNTED[kind]] += 1
        if played.line.is_torn:
            self.counts["torn"] += 1
        if played.is_second:
            self.counts["second_cuts"] += 1

    def to_json(self) -> dict[str, Any]:
        """The result: the same keys for every kind of board (docs/campaign.md)."""
        rate = self.counts["states"] / self.seconds if self.seconds else 0.0
        return {
            "schema": SCHEMA,
            **{name: self.counts[name] for name in COUNTS},
            "failures": len(self.failures),
            "states_per_s": round(rate, 1),
            "board": self.board,
            "seed": self.seed,
        }

    def details(self) -> dict[str, Any]:
        """What else is known."""
        states = self.counts["states"]
        return {
            **{name: self.counts[name] for name in ("plug_pulls", "out_of_order", "chip_faults", "cancels")},
            "boots": self.counts["boots"],
            "seconds": round(self.seconds, 1),
            "cpu_ms_per_state": round(1000 * self.cpu_s / states, 1) if states else 0.0,
            "complete": self.is_complete,
            "golden": self.golden,
            "messages_cut": self.counts["link_cuts"] - self.counts["mqtt_packets_cut"],
            "mqtt_packets_cut": self.counts["mqtt_packets_cut"],
            "failed": [
                {"line": line, "oracles": [f"{f.oracle}: {f.text}" for f in failures]}
                for line, failures in self.failures
            ],
        }


COUNTS = (
    "states", "cuts", "torn", "second_cuts", "link_cuts", "server_kills", "content_faults", "bit_rot",
)  # fmt: skip
_COUNTED = {
    lines.CUT: "cuts",
    lines.LOSE: "out_of_order",
    lines.ROT: "bit_rot",
    lines.LINK: "link_cuts",
    lines.TWICE: "link_cuts",
    lines.LATE: "link_cuts",
    lines.CONTENT: "content_faults",
    lines.CHIP: "chip_faults",
    lines.CANCEL: "cancels",
    lines.UNPLUG: "plug_pulls",
    lines.HANG: "plug_pulls",
    lines.BROWNOUT: "plug_pulls",
    lines.ALONE: "plug_pulls",
    lines.UNFIT: "plug_pulls",
    lines.CRASH: "plug_pulls",
    lines.RESTART: "plug_pulls",
}


def campaign(
    world: World,
    seed: int,
    tasks: Sequence[Task],
    workers: int = 2,
    budget_s: float | None = None,
    progress: Callable[[Tally], None] | None = None,
    stop_at: int | None = None,
) -> Tally:
    """Play tasks in order until they or the budget end, or `stop_at` lines failed; the sum of it."""
    golden = world.goldens["new"].trace
    figures = {"steps": len(golden.steps), "erases": golden.erases, "program_bytes": golden.program_bytes}
    tally = Tally(seed, "process", figures)
    start = time.monotonic()
    for batch in _in_order(world, seed, tasks, workers, None if budget_s is None else start + budget_s):
        for played in batch.lines:
            tally.add(played)
        tally.cpu_s += batch.cpu_s
        tally.counts["boots"] += batch.boots
        tally.seconds = time.monotonic() - start
        if progress is not None:
            progress(tally)
        if stop_at is not None and len(tally.failed) >= stop_at:
            return tally
        tally.counts["tasks"] += batch.whole
    tally.is_complete = tally.counts["tasks"] == len(tasks)
    return tally


def _in_order(
    world: World, seed: int, tasks: Sequence[Task], workers: int, deadline: float | None
) -> Iterator[Batch]:
    folder = working_folder()  # this process cleans up: a worker's end runs nothing
    context = get_context("fork")
    stopping = context.Event()
    arguments = (world, Path(folder.name), stopping)
    pool = ProcessPoolExecutor(workers, context, _start_worker, arguments)
    waiting: deque[Future[Batch]] = deque()
    todo = iter(tasks)
    try:
        while True:
            while len(waiting) < workers * _AHEAD and (deadline is None or time.monotonic() < deadline):
                task = next(todo, None)
                if task is None:
                    break
                waiting.append(pool.submit(_play, task, seed, deadline))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        stopping.set()  # whoever interrupts a campaign does not wait for its longest tasks
        pool.shutdown(wait=True, cancel_futures=True)
        folder.cleanup()


def _start_worker(world: World, parent: Path, stopping: Event) -> None:
    be_a_worker()
    _player.append(Player(world, parent))
    _stopping.append(stopping)


def be_a_worker() -> None:
    """Ctrl-C is for the campaign, which ends its workers; one that was killed takes them along (prctl(2))."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _play(task: Task, seed: int, deadline: float | None) -> Batch:
    player = _player[0]
    before_s, before = player.cpu_s, player.boots
    outcome = player.play(task.line)
    found = [_played(outcome, False)]
    if task.seconds and not outcome.failures:
        for line in plan.second_cuts(outcome, seed, task.seconds):
            if _stopping[0].is_set() or (deadline is not None and time.monotonic() >= deadline):
                return Batch(found, player.cpu_s - before_s, player.boots - before, whole=False)
            found.append(_played(player.play_second(outcome, line), True))
    return Batch(found, player.cpu_s - before_s, player.boots - before, whole=True)


def _played(outcome: Outcome, is_second: bool) -> Played:
    return Played(outcome.line, outcome.hash, outcome.failures, is_second)
