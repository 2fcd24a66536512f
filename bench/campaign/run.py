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
from pathlib import Path
from typing import Any

from bench.campaign import lines, plan
from bench.campaign.lines import Line
from bench.campaign.machine import working_folder
from bench.campaign.oracles import Failure
from bench.campaign.plan import Task
from bench.campaign.player import Outcome, Player
from bench.campaign.world import World

SCHEMA = "tableside.campaign/1"
_PR_SET_PDEATHSIG = 1
_AHEAD = 4  # tasks given out for each worker, so that none waits

_player: list[Player] = []  # the one of this worker process


@dataclass(frozen=True)
class Played:
    """One line with its verdict, as it comes back from a worker."""

    line: Line
    hash: int
    failures: tuple[Failure, ...]
    lives: int
    is_second: bool


@dataclass
class Tally:
    """What a campaign has seen so far."""

    seed: int
    board: str
    golden: dict[str, int]
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Played] = field(default_factory=list)
    seconds: float = 0.0
    is_complete: bool = False
    _seen: set[int] = field(default_factory=set)

    def add(self, played: Played) -> None:
        """Count one line; a flash that was there before counts once."""
        self.counts["lives"] += played.lives
        if played.failures:
            self.failed.append(played)
        kind = played.line.faults[-1].kind
        if kind in lines.FLASH_FAULTS:
            if played.hash in self._seen:
                return
            self._seen.add(played.hash)
        self.counts["states"] += 1
        self.counts[_COUNTED[kind]] += 1
        if played.line.is_torn:
            self.counts["torn"] += 1
        if played.is_second:
            self.counts["second_cuts"] += 1

    def to_json(self) -> dict[str, Any]:
        """The result as documented in docs/campaign.md."""
        names = (
            "states",
            "cuts",
            "torn",
            "second_cuts",
            "link_cuts",
            "server_kills",
            "content_faults",
            "bit_rot",
        )
        return {
            "schema": SCHEMA,
            "board": self.board,
            "seed": self.seed,
            **{name: self.counts[name] for name in names},
            "plug_pulls": self.counts["plug_pulls"],
            "out_of_order": self.counts["out_of_order"],
            "boots": self.counts["lives"],
            "failures": len(self.failed),
            "states_per_s": round(self.counts["states"] / self.seconds, 1) if self.seconds else 0.0,
            "seconds": round(self.seconds, 1),
            "complete": self.is_complete,
            "golden": self.golden,
            "failed": [
                {"line": str(one.line), "oracles": [f"{f.oracle}: {f.text}" for f in one.failures]}
                for one in self.failed
            ],
        }


_COUNTED = {
    lines.CUT: "cuts",
    lines.LOSE: "out_of_order",
    lines.ROT: "bit_rot",
    lines.LINK: "link_cuts",
    lines.TWICE: "link_cuts",
    lines.CONTENT: "content_faults",
    lines.UNPLUG: "plug_pulls",
    lines.HANG: "plug_pulls",
    lines.BROWNOUT: "plug_pulls",
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
        for played in batch:
            tally.add(played)
        tally.seconds = time.monotonic() - start
        if progress is not None:
            progress(tally)
        if stop_at is not None and len(tally.failed) >= stop_at:
            return tally
        tally.counts["tasks"] += 1
    tally.is_complete = tally.counts["tasks"] == len(tasks)
    return tally


def _in_order(
    world: World, seed: int, tasks: Sequence[Task], workers: int, deadline: float | None
) -> Iterator[list[Played]]:
    folder = working_folder()  # this process cleans up: a worker's end runs nothing
    pool = ProcessPoolExecutor(workers, get_context("fork"), _start_worker, (world, Path(folder.name)))
    waiting: deque[Future[list[Played]]] = deque()
    todo = iter(tasks)
    try:
        while True:
            while len(waiting) < workers * _AHEAD and (deadline is None or time.monotonic() < deadline):
                task = next(todo, None)
                if task is None:
                    break
                waiting.append(pool.submit(_play, task, seed))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        folder.cleanup()


def _start_worker(world: World, parent: Path) -> None:
    die_with_parent()
    _player.append(Player(world, parent))


def die_with_parent() -> None:
    """A worker whose campaign was killed has nobody to report to (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _play(task: Task, seed: int) -> list[Played]:
    player = _player[0]
    outcome = player.play(task.line)
    found = [_played(outcome, False)]
    if task.seconds and not outcome.failures:
        for line in plan.second_cuts(outcome, seed, task.seconds):
            found.append(_played(player.play_second(outcome, line), True))
    return found


def _played(outcome: Outcome, is_second: bool) -> Played:
    return Played(outcome.line, outcome.hash, outcome.failures, outcome.lives, is_second)
