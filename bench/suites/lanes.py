"""Suites side by side: each in a process of its own, with its own server, link and boards.

    bench run --+-- lane: boot ---- lane: menu ----+-- lane: throughput (alone)
                +-- lane: signing -- lane: ota ----+

A lane tells its progress through a pipe. Suites that take times run when everything else is through.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from bench.children import kill, spawn
from bench.errors import BenchError
from bench.measure import Measurement
from bench.results import CaseResult
from bench.rig import Rig, RigOptions
from bench.suites import load
from bench.suites.registry import Suite
from bench.suites.runner import Progress, run_suite

GRACE_S = 20.0  # a lane takes its server and boards down before it goes
SAY, STOPPED = "say", "stopped"


@dataclass(frozen=True)
class Order:
    """What one lane is to do: the suite (one case of it only, if `only`), in `folder`."""

    suite: str
    only: str | None
    options: RigOptions
    folder: Path


@dataclass(frozen=True)
class _Lane:
    order: Order
    child: subprocess.Popen[bytes]
    events: Connection


def run_in_lanes(
    suites: Sequence[Suite],
    options: RigOptions,
    folder: Path,
    progress: Progress,
    *,
    only: str | None = None,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Run suites, up to `jobs` at once, each in `folder`/<its name>.

    Raises: BenchError when a rig cannot be had; the other lanes are taken down first.
    """
    chosen = [suite for suite in suites if suite.chosen(only)]
    together = [suite.name for suite in chosen if not suite.alone]
    alone = [suite.name for suite in chosen if suite.alone]
    for names, width in ((together, jobs), (alone, 1)):
        orders = [Order(name, only, options, folder / name) for name in names]
        _run_pool(orders, width, progress, say)


def _run_pool(orders: list[Order], width: int, progress: Progress, say: Callable[[str], None]) -> None:
    running: dict[Connection, _Lane] = {}
    try:
        while orders or running:
            while orders and len(running) < width:
                lane = _start(orders.pop(0))
                running[lane.events] = lane
            for events in wait(list(running)):
                assert isinstance(events, Connection)
                if not _hear(running[events], progress, say):
                    _end(running.pop(events))
    finally:
        for lane in running.values():
            lane.child.send_signal(signal.SIGTERM)
        for lane in running.values():
            _end(lane)


def _start(order: Order) -> _Lane:
    order.folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = Pipe(duplex=True)
    with theirs:
        argv = [sys.executable, "-m", "bench.suites.lanes", str(theirs.fileno())]
        child = spawn(argv, stdout=None, stderr=None, pass_fds=[theirs.fileno()])
    ours.send(order)
    return _Lane(order, child, ours)


def _hear(lane: _Lane, progress: Progress, say: Callable[[str], None]) -> bool:
    """Pass one event on; False when it was the last.

    Raises: BenchError as the lane raised it, or LANE_LOST when it died without a word.
    """
    try:
        name, details = lane.events.recv()
    except (EOFError, ConnectionResetError) as error:
        text = f"The process of the suite {lane.order.suite} died: see {lane.order.folder}."
        raise BenchError("LANE_LOST", text) from error
    if name == SAY:
        say(*details)
    elif name != STOPPED:
        getattr(progress, name)(*details)
    elif details:
        raise BenchError(*details)
    return bool(name != STOPPED)


def _end(lane: _Lane) -> None:
    lane.events.close()
    try:
        lane.child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        kill(lane.child)


# ---------------------------------------------------------------- inside a lane


class _Teller(Progress):
    """Sends what it is told to the process that started the lane."""

    def __init__(self, events: Connection) -> None:
        self._events = events

    def _tell(self, name: str, *details: Any) -> None:
        self._events.send((name, details))

    def suite_begins(self, suite: str, about: str, cases: int) -> None:
        self._tell("suite_begins", suite, about, cases)

    def case_begins(self, suite: str, case: str) -> None:
        self._tell("case_begins", suite, case)

    def case_ends(self, suite: str, result: CaseResult) -> None:
        self._tell("case_ends", suite, result)

    def measured(self, suite: str, figure: Measurement) -> None:
        self._tell("measured", suite, figure)

    def suite_ends(self, suite: str, seconds: float) -> None:
        self._tell("suite_ends", suite, seconds)

    def say(self, text: str) -> None:
        """A line for the person at the keyboard."""
        self._tell(SAY, text)

    def stopped(self, *error: str) -> None:
        """The last word: nothing, or code and text of what stopped the lane."""
        self._tell(STOPPED, *error)


def _drive(events: Connection) -> None:
    order: Order = events.recv()
    teller = _Teller(events)
    try:
        with Rig(order.options, order.folder, teller.say) as rig:
            rig.start()
            run_suite(rig, load(order.suite), teller, order.only)
    except BenchError as error:
        teller.stopped(error.code, error.text)
    else:
        teller.stopped()


def main() -> None:
    """Be a lane: the argument is the file descriptor of the pipe."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Connection(int(sys.argv[1])) as events:
            _drive(events)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # the run was broken off: the rig is down, and nobody listens any more


if __name__ == "__main__":
    main()
