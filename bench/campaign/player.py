"""Makes the state a line describes, boots it, follows the terminal until it is content, has it judged."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from bench.boards.flashmap import REGIONS, SECTOR_BYTES
from bench.campaign import cases, lines
from bench.campaign.lines import (
    CONTENT,
    CUT,
    FLASH_FAULTS,
    LINK,
    LOSE,
    ROT,
    TWICE,
    UNPLUG,
    WHOLE,
    Fault,
    Line,
)
from bench.campaign.machine import RESETS, Life
from bench.campaign.memory import Memory
from bench.campaign.oracles import Case, Facts, Failure, Judge
from bench.campaign.record import CONTROL_BYTES, newest
from bench.campaign.trace import FlashState, Step, Trace
from bench.campaign.updates import INSTALLED, ROLLED_BACK
from bench.campaign.world import World
from bench.errors import BenchError

CONTENTS = (
    "random", "truncated", "short", "empty", "swapped", "dribble", "slow", "endless", "shifted", "oversized",
    "random-offer", "empty-offer", "cut-offer", "flipped-offer",
)  # fmt: skip
_PLUGS = (UNPLUG, lines.BROWNOUT, lines.ALONE)
_HANG_WATCHDOG_MS = 300
_RECOVERY_ORDERS = [3]
_SEED_OF_LIVES = 70  # not the golden lives': an op id repeats if boot number and random numbers do

Told = list[tuple[int, Mapping[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """What became of one line. `trace`: the steps of the recovery, all lives in one row."""

    line: Line
    hash: int
    failures: tuple[Failure, ...]
    lives: int
    trace: Trace
    told: Told
    consoles: tuple[str, ...]


class Player:
    """Plays lines on one machine. A context manager."""

    def __init__(self, world: World, parent: Path | None = None) -> None:
        self._world = world
        self._real = world.machine(parent)
        base = FlashState(world.base)
        self._machine = Memory(self._real, base)
        self._starts = {name: FlashState.copy_of(base) for name in world.goldens}
        for name, golden in world.goldens.items():
            self._starts[name].apply(golden.start)
        self._prepared: tuple[Line, FlashState, Facts, dict[str, int]] | None = None

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *trouble: object) -> None:
        self._real.__exit__(*trouble)

    @property
    def cpu_s(self) -> float:
        """Seconds of computing so far, by this process and by every life of its machine."""
        return time.process_time() + self._real.cpu_s

    @property
    def boots(self) -> int:
        """Starts of the terminal so far."""
        return self._machine.boots

    def play(self, line: Line) -> Outcome:
        """Play one line. Raises: BenchError(BAD_LINE) for one that fits no step of this world."""
        return self._play(line, *self.prepare(line))

    def play_second(self, first: Outcome, line: Line) -> Outcome:
        """Play the line of `first` with one more cut, without playing `first` again."""
        if self._prepared is None or self._prepared[0] != first.line:
            self._prepared = (first.line, *self.prepare(first.line))
        _, ready, promised, orders = self._prepared
        state, facts, known = FlashState.copy_of(ready), promised.copy(), dict(orders)
        self._then(state, facts, known, first.trace, first.told, line.faults[-1])
        return self._play(line, state, facts, known)

    def _play(self, line: Line, state: FlashState, facts: Facts, known: dict[str, int]) -> Outcome:
        self._know_record(line, state, facts)
        self._machine.load_state(state)
        first = cases.first(self._world, line, newest(state.read(0, CONTROL_BYTES)), facts)
        case = replace(cases.expected(self._world, line, known), first=first)
        lives = self._recover(line, case)
        told = _in_a_row(lives)
        failures = Judge(self._world, case, facts).judge(lives)
        consoles = tuple(life.console for life in lives)
        return Outcome(line, state.hash, tuple(failures), len(lives), _joined(lives), told, consoles)

    def prepare(self, line: Line) -> tuple[FlashState, Facts, dict[str, int]]:
        """The flash a line describes, what had been promised by then, and every order there may be."""
        golden = self._world.goldens.get(line.golden)
        if golden is None:
            names = ", ".join(self._world.goldens)
            raise BenchError("BAD_LINE", f"There is no update called {line.golden!r}; there are: {names}.")
        state = FlashState.copy_of(self._starts[line.golden])
        facts = Facts(floor=self._world.releases["old"].floor)
        self._know_record(line, state, facts)
        facts.confirmed = self._world.releases["old"].version
        facts.settled.update(self._world.past)
        facts.spoilt |= {golden.update.flashed} - {""}
        _learn_pending(facts, golden.lives[0])
        trace, told = golden.trace, golden.told()
        known = dict(self._world.past)
        cuts = 0
        for number, fault in enumerate(line.faults):
            if fault.kind in (CUT, LOSE):
                if cuts:
                    before = Line(line.golden, line.faults[:number])
                    self._machine.load_state(state)
                    lives = self._recover(before, cases.expected(self._world, before, known))
                    trace, told = _joined(lives), _in_a_row(lives)
                self._then(state, facts, known, trace, told, fault)
                cuts += 1
            elif fault.kind == ROT:
                self._know_record(line, state, facts)
                facts.spoilt |= self._spoilt(state, fault)
                state.flip(fault.number)
        return state, facts, known

    def _know_record(self, line: Line, state: FlashState, facts: Facts) -> None:
        control = newest(state.read(0, CONTROL_BYTES))
        offered = self._world.releases[self._world.goldens[line.golden].update.offer]
        if control is not None:
            facts.floor = max(facts.floor, control.floor)
            facts.quarantined |= control.quarantined
            if control.hash == offered.digest:
                facts.confirmed = offered.version

    def _spoilt(self, state: FlashState, fault: Fault) -> set[str]:
        """The release whose picture this bit belongs to."""
        start = fault.number // 8 // SECTOR_BYTES * SECTOR_BYTES
        content = state.read(start, SECTOR_BYTES)
        return {name for name, release in self._world.releases.items() if release.sector == content}

    def _then(
        self, state: FlashState, facts: Facts, known: dict[str, int], trace: Trace, told: Told, fault: Fault
    ) -> None:
        """Let a trace happen up to a cut, with what was told on the way."""
        apply(state, trace, fault)
        done = fault.number if fault.kind == CUT else out_of_order(trace, fault)[0]
        for at, event in told:
            if at <= done:
                facts.learn(event)
            elif at == done + 1 and "settled" in event:
                facts.answered.add(event["settled"])  # the torn step may have lost nothing but padding
        known.update({event["queued"]: event["crc"] for _, event in told if "queued" in event})

    # -- following the terminal

    def _recover(self, line: Line, case: Case) -> list[Life]:
        """Start until the terminal is content, or the bound is passed by one."""
        faults = [fault for fault in line.faults if fault.kind not in FLASH_FAULTS]
        lives: list[Life] = []
        unplugs = sum(fault.number for fault in faults if fault.kind in _PLUGS)
        how = "alone" if any(fault.kind == lines.ALONE for fault in faults) else "unplug"
        while len(lives) <= case.max_lives:
            script = self._script(case, faults, len(lives))
            options = {"watchdog_ms": _HANG_WATCHDOG_MS} if script.get("hang") else None
            trial = bool(lives) and lives[-1].exit_code in RESETS
            if unplugs and trial and not script.get("hang"):
                script[how] = True
            life = self._machine.live(script, options)
            lives.append(life)
            if life.exit_code in RESETS:
                continue
            self._machine.unplug()
            if case.nameless and life.first("refused") is not None:
                self._machine.write(REGIONS["identity"].start, self._world.identity)
                continue
            if script.get(how):
                unplugs -= 1
                while unplugs and len(lives) <= case.max_lives:
                    lives.append(self._machine.live(script))
                    self._machine.unplug()
                    unplugs -= 1
                continue
            if life.exit_code != 0 or (
                self._is_content(life, case) and not (case.refused and len(lives) == 1)
            ):
                break
        return lives

    def _is_content(self, life: Life, case: Case) -> bool:
        ended = life.first("ended")
        if ended is None:
            return True
        if case.nameless and life.record is not None:
            return bool(
                ended["ended"] == self._world.releases[case.offered].says
                or life.record.is_quarantined(self._world.releases[case.offered].digest)
            )
        if case.outcome == INSTALLED:
            return bool(ended["ended"] == self._world.releases[case.offered].says)
        if case.outcome == ROLLED_BACK:
            record = life.record
            return record is not None and record.is_quarantined(self._world.releases[case.offered].digest)
        return True

    def _script(self, case: Case, faults: Iterable[Fault], number: int) -> dict[str, Any]:
        """The boot option of the life with this number (from 0)."""
        first = number == 0
        script = self._world.script(case.offered, orders=_RECOVERY_ORDERS, seed=_SEED_OF_LIVES + number)
        for fault in faults:
            if fault.kind == LINK and first:
                script |= {"cut": fault.number, "after": fault.after}
            elif fault.kind == TWICE and first:
                script["twice"] = fault.number
            elif fault.kind == CONTENT and first and fault.name in self._world.hostile:
                script |= {
                    "bundles": {fault.name: self._world.spans[fault.name]},
                    "offer": fault.name,
                    "insist": True,
                }
            elif fault.kind == CONTENT and first and fault.name in self._world.rotations:
                script["rotation"] = self._world.rotations[fault.name]
            elif fault.kind == CONTENT and first:
                script |= {"content": fault.name, "seed": fault.seed or 7}
            elif fault.kind == lines.CANCEL and (first or not fault.number):
                script["cancel"] = fault.number
            elif fault.kind == lines.HANG:
                script["hang"] = True
            elif fault.kind == lines.UNFIT:
                script["unfit"] = True
            elif fault.kind == lines.CRASH:
                script["crash"] = self._world.releases[case.offered].version
            elif fault.kind == lines.RESTART:
                script["restart"] = number < fault.number
            elif fault.kind == lines.LATE:
                script["late"] = fault.number
        return script


def apply(state: FlashState, trace: Trace, fault: Fault) -> None:
    """Let a trace happen up to this fault. Raises: BenchError(BAD_LINE) behind its end."""
    if fault.kind == LOSE:
        group = _group(trace, fault)
        state.apply(trace.steps[: group.start])
        state.apply(out_of_order(trace, fault)[1])
        return
    if not 0 <= fault.number <= len(trace.steps) - (fault.keep != WHOLE or fault.seed != 0):
        raise BenchError("BAD_LINE", f"{fault} lies behind the {len(trace.steps)} steps there are.")
    state.apply(trace.steps[: fault.number])
    if fault.keep != WHOLE or fault.seed:
        state.apply([state.torn(trace.steps[fault.number], fault.tear)])


def out_of_order(trace: Trace, fault: Fault) -> tuple[int, list[Step]]:
    """What a write cache may have done of a sync group when the power fails -> (steps issued, those done).

    The power fails behind some step of the group. Of the file system's steps issued by then each sector has
    done as many as the seed says, in its own order; the other regions are written through.
    """
    group = _group(trace, fault)
    random = Random(fault.seed)
    issued = random.randint(group.start + 1, group.stop)
    steps = [trace.steps[number] for number in range(group.start, issued)]
    cached = [step.sector for step in steps if _is_cached(step)]
    left = {sector: random.randint(0, cached.count(sector)) for sector in sorted(set(cached))}
    done = []
    for step in steps:
        if not _is_cached(step):
            done.append(step)
        elif left[step.sector]:
            left[step.sector] -= 1
            done.append(step)
    return issued, done


def _is_cached(step: Step) -> bool:
    return step.offset >= REGIONS["vfs"].start


def _group(trace: Trace, fault: Fault) -> range:
    groups = trace.groups()
    if not 0 <= fault.number < len(groups):
        raise BenchError("BAD_LINE", f"{fault}: there are {len(groups)} sync groups.")
    return groups[fault.number]


def _joined(lives: list[Life]) -> Trace:
    return Trace.joined([life.trace for life in lives])


def _in_a_row(lives: list[Life]) -> Told:
    found: Told = []
    start = 0
    for life in lives:
        found += [(start + int(event["at"]), event) for event in life.events]
        start += len(life.trace.steps)
    return found


def _learn_pending(facts: Facts, life: Life) -> None:
    started = life.first("started")
    assert started is not None
    facts.queued.update(dict(started["pending"]))
    facts.boots = int(started["boots"]) - 1
