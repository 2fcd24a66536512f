"""Plant one bug after the other, each in a process of its own, and see what notices it."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import re
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.mutants.bug import Mutant
from bench.mutants.rewrite import StaleEdit, plant

SCHEMA = "tableside.mutants/1"
DEFAULT_BUDGET_S = 600.0
WORKERS = 2
SHORTEST_S = 5.0  # one short run fits
WAIT_FACTOR = 12.0  # a busy machine may take this many times as long as the computing itself
SEEDS = 20
LONG_S = 240.0
SEARCH = ((40.0, 7), (80.0, 7), (160.0, 7), (240.0, 20))  # virtual seconds, seeds
SOONEST = Path(__file__).with_name("soonest.json")
SIMULATOR_FAULT = "SIMULATION"  # the simulator itself failed: that catches nothing


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of one planted bug; ``by`` names the run or check that noticed it, or says why not.

    ``seconds`` are of computing: what other programs do meanwhile is not counted.
    """

    name: str
    caught: bool
    by: str
    seconds: float


def as_json(results: Sequence[Caught]) -> dict[str, Any]:
    """The table as ``tableside.mutants/1``."""
    rows = [{"name": r.name, "caught": r.caught, "by": r.by, "seconds": round(r.seconds, 2)} for r in results]
    return {"schema": SCHEMA, "mutants": rows}


def campaign(
    mutants: Sequence[Mutant], budget_s: float, workers: int = WORKERS, search: bool = False
) -> Iterator[Caught]:
    """Results in the order of ``mutants``; each of ``workers`` computes ``budget_s`` seconds at most.

    Every bug gets the same share of what is left, so that quick ones leave time for the others.
    """
    left_s = budget_s * workers
    waiting = list(enumerate(mutants))
    running: dict[Any, tuple[int, _Child]] = {}
    done: dict[int, Caught] = {}
    following = 0
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                share_s = max(SHORTEST_S, left_s / (len(waiting) + len(running)))
                index, mutant = waiting.pop(0)
                child = _Child(mutant, share_s, search)
                running[child.results] = (index, child)
            deadline = min(child.deadline for _, child in running.values())
            ready = multiprocessing.connection.wait(list(running), max(0.0, deadline - time.monotonic()))
            for connection in list(running):
                index, child = running[connection]
                if connection in ready or time.monotonic() >= child.deadline:
                    result = done[index] = child.finish()
                    left_s -= result.seconds
                    del running[connection]
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        for _, child in running.values():
            child.finish()


def control(budget_s: float) -> Caught:
    """The same looks at the system as it is: nothing may be found."""
    child = _Child(Mutant("none", "no bug at all", ()), budget_s)
    child.wait()
    return child.finish()


class _Child:
    """A process that judges one bug."""

    def __init__(self, mutant: Mutant, budget_s: float, search: bool = False) -> None:
        context = multiprocessing.get_context("fork")
        self.results, answers = context.Pipe(duplex=False)
        self.mutant = mutant
        self._budget_s = budget_s
        self.deadline = time.monotonic() + budget_s * WAIT_FACTOR
        self._process = context.Process(
            target=_judge_into, args=(answers, mutant, budget_s, search), daemon=True
        )
        self._process.start()
        answers.close()

    def wait(self) -> None:
        """Until there is a result or no time left."""
        multiprocessing.connection.wait([self.results], max(0.0, self.deadline - time.monotonic()))

    def finish(self) -> Caught:
        """The result; a process that is not ready is ended, its bug survived."""
        found = (False, "no result in time", self._budget_s)
        try:
            if self.results.poll():
                found = self.results.recv()
        except EOFError:
            found = (False, "the process that judged it ended without a word", self._budget_s)
        self.results.close()
        self._process.kill()
        self._process.join()
        caught, by, seconds = found
        return Caught(self.mutant.name, caught, by, seconds)


def _judge_into(answers: Any, mutant: Mutant, budget_s: float, search: bool) -> None:
    begun = time.process_time()
    try:
        found = judge(mutant, budget_s, search)
    except StaleEdit as stale:
        found = (False, f"the bug could not be planted: {stale}")
    except Exception as error:  # noqa: BLE001 - a judge that fails is a survivor with a reason
        traceback.print_exc()
        found = (False, f"the judge failed: {error!r}")
    answers.send((*found, time.process_time() - begun))


def judge(mutant: Mutant, budget_s: float, search: bool = False) -> tuple[bool, str]:
    """Plant a bug into this process for good, then look. Returns (caught, by what). Raises: StaleEdit.

    Looks first where the bug was seen soonest; with ``search`` from the shortest runs upwards instead.
    """
    plant(mutant.edits)
    begun = time.process_time()
    if mutant.check:
        problem = import_module("bench.mutants.checks").CHECKS[mutant.check]()
        return (
            (True, f"check {mutant.check}: {problem}") if problem else (False, f"check {mutant.check} passes")
        )
    if not mutant.edits:
        problems = [
            problem for look in import_module("bench.mutants.checks").CHECKS.values() if (problem := look())
        ]
        if problems:
            return True, problems[0]
    simulate = import_module("bench.sim.run").simulate
    hot_config = import_module("bench.sim.hot").hot_config
    tried = 0
    for seed, duration_s in searched() if search else usual(mutant.name):
        result = simulate(hot_config(seed, duration_s))
        tried += 1
        if result.violations:
            first = result.violations[0]
            if first.code == SIMULATOR_FAULT:
                raise RuntimeError(first.text)
            return True, f"sim seed {seed} of {duration_s:g} s: {first.code}"
        if time.process_time() - begun > budget_s:
            break
    return False, f"{tried} simulated runs saw nothing"


def usual(name: str) -> Iterator[tuple[int, float]]:
    """(seed, virtual seconds) of the runs to look at: the one that caught it soonest, then long ones."""
    soonest = soonest_runs().get(name)
    if soonest is not None:
        yield soonest
    for seed in range(1, SEEDS + 1):
        yield seed, LONG_S


def searched() -> Iterator[tuple[int, float]]:
    """Short runs first, many seeds each."""
    for duration_s, seeds in SEARCH:
        for seed in range(1, seeds + 1):
            yield seed, duration_s


def soonest_runs() -> dict[str, tuple[int, float]]:
    """Bug -> the run that caught it soonest, as `tableside sim mutants --record` found them."""
    found = json.loads(SOONEST.read_text())
    return {name: (int(seed), float(duration_s)) for name, (seed, duration_s) in found.items()}


def record(results: Sequence[Caught]) -> None:
    """Keep the runs that caught bugs, beside those of bugs that were not looked for."""
    known: dict[str, Any] = dict(soonest_runs())
    for result in results:
        run = re.match(r"sim seed (\d+) of ([\d.]+) s", result.by)
        if result.caught and run is not None:
            known[result.name] = [int(run[1]), float(run[2])]
    lines = [f"  {json.dumps(name)}: {json.dumps(list(known[name]))}" for name in sorted(known)]
    SOONEST.write_text("{\n" + ",\n".join(lines) + "\n}\n")
