"""The power-cut campaign for firmware images: `tableside bench campaign --layer image`.

The order of tasks is fixed and results are taken in that order: with any number of workers the first n tasks
give the same states and the same verdicts, and a budget or Ctrl-C only decides how far it goes.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

from bench.campaign import image_plan
from bench.campaign.image_player import (
    CHIP_ID,
    FIRMWARE,
    UPDATES,
    Goldens,
    ImagePlayer,
    Releases,
    Verdict,
)
from bench.campaign.plan import Task
from bench.campaign.run import Batch, Played, Tally
from bench.esp32 import appimage

BOARD = "esp32c3-model"
_SEGMENT_BYTES = 18_000
_AHEAD = 4  # tasks given out for each worker, so that none waits


@dataclass
class Crew:
    """Workers: each plays on a chip of its own. A context manager; leaving it ends them at once."""

    players: Sequence[ImagePlayer]
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._goldens: Goldens = {}
        self._free: SimpleQueue[ImagePlayer] = SimpleQueue()
        for player in self.players:
            self._free.put(player)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *trouble: object) -> None:
        self.stopping.set()
        for player in self.players:
            player.close()

    def goldens(self) -> Goldens:
        """The steps of every undisturbed update. Raises: BenchError(CHIP_GONE)."""
        if not self._goldens:
            self._goldens = self.players[0].goldens()
        return self._goldens

    def play(self, task: Task, seed: int, deadline: float | None) -> Batch:
        """One task on the next chip that is free. Raises: BenchError(BAD_LINE, CHIP_GONE)."""
        player = self._free.get()
        try:
            first = player.play(task.line, sizes=task.seconds > 0)
            found, boots = [_played(first, False)], first.starts
            if first.failures:
                return Batch(found, 0.0, boots, whole=True)
            for line in image_plan.second_cuts(first, seed, task.seconds):
                if self.stopping.is_set() or (deadline is not None and time.monotonic() >= deadline):
                    return Batch(found, 0.0, boots, whole=False)
                second = player.play(line)
                boots += second.starts
                found.append(_played(second, True))
            return Batch(found, 0.0, boots, whole=True)
        finally:
            self._free.put(player)


def crew(
    releases: Releases, workers: int, firmware: Path = FIRMWARE, updates: Sequence[str] = UPDATES
) -> Crew:
    """Start this many workers."""
    return Crew([ImagePlayer(releases, firmware, updates) for _ in range(workers)])


def blank_tally(crew: Crew, seed: int) -> Tally:
    """What a campaign begins to count with. Raises: BenchError(CHIP_GONE)."""
    return Tally(seed, BOARD, {name: len(steps) for name, steps in crew.goldens().items()})


def campaign(
    crew: Crew,
    tally: Tally,
    tasks: Sequence[Task],
    budget_s: float | None = None,
    progress: Callable[[Tally], None] | None = None,
    stop_at: int | None = None,
) -> Tally:
    """Play tasks in order until they or the budget end, or `stop_at` lines failed. The sum is in `tally`,
    also that of what was played before a Ctrl-C.

    Raises: BenchError(CHIP_GONE).
    """
    start, before_s = time.monotonic(), _children_s()
    deadline = None if budget_s is None else start + budget_s
    try:
        for batch in _in_order(crew, tally.seed, tasks, deadline):
            for played in batch.lines:
                tally.add(played)
            tally.seconds = time.monotonic() - start
            tally.counts["boots"] += batch.boots
            tally.counts["tasks"] += batch.whole
            if progress is not None:
                progress(tally)
            if stop_at is not None and len(tally.failed) >= stop_at:
                break
    finally:
        crew.__exit__()
        tally.cpu_s = _children_s() - before_s
        tally.is_complete = tally.counts["tasks"] == len(tasks)
    return tally


def _in_order(crew: Crew, seed: int, tasks: Sequence[Task], deadline: float | None) -> Iterator[Batch]:
    pool = ThreadPoolExecutor(len(crew.players))
    waiting: deque[Future[Batch]] = deque()
    todo = iter(tasks)
    try:
        while True:
            while len(waiting) < len(crew.players) * _AHEAD:
                task = None if deadline is not None and time.monotonic() >= deadline else next(todo, None)
                if task is None:
                    break
                waiting.append(pool.submit(crew.play, task, seed, deadline))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        crew.stopping.set()  # whoever interrupts a campaign does not wait for its longest tasks
        pool.shutdown(wait=True, cancel_futures=True)


def _played(verdict: Verdict, is_second: bool) -> Played:
    """The same flash under another bootloader, or with another release on offer, is another state."""
    named = sha256(f"{verdict.line.golden} {verdict.hash:032x}".encode()).digest()
    return Played(verdict.line, int.from_bytes(named), verdict.failures, is_second)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def small_image() -> appimage.AppImage:
    """The image the campaign plays with unless it is given a real one."""
    return appimage.synthetic(CHIP_ID, _SEGMENT_BYTES)
