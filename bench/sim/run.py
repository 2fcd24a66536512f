"""One run from its seed to its result."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.history.check import check
from bench.history.events import History, Restocked, Violation
from bench.history.read import read_books
from bench.sim import house
from bench.sim.clock import VirtualLoop
from bench.sim.faults import FaultPlan, Faults
from bench.sim.firmware import installed
from bench.sim.waiters import Waiters
from bench.sim.world import World
from bench.staff import FLOOR

SCHEMA = "tableside.sim/1"
DAY_S = 86_400.0


@dataclass(frozen=True)
class SimConfig:
    """What a run is made of; times in seconds of virtual time."""

    seed: int = 1
    duration_s: float = DAY_S
    terminals: int = 20
    order_every_s: float = 20.0
    restock_every_s: float = 120.0
    restock_most: int = 60
    opening_stock: int = 200
    menu_every_s: float = 1800.0
    suspend_every_s: float = 2400.0
    staff_every_s: float = 8.0
    floor_every_s: float = 20.0  # courses and closed tables; 0: nobody sees to them
    faults: FaultPlan | None = field(default_factory=FaultPlan)
    stop_at_violation: bool = False
    settle_within_s: float = 3600.0


@dataclass(frozen=True)
class SimResult:
    """What came of a run; ``speed`` is virtual seconds per real second."""

    seed: int
    duration_s: float
    terminals: int
    digest: str
    operations: dict[str, int]
    faults: dict[str, int]
    violations: list[Violation]
    real_s: float

    @property
    def speed(self) -> float:
        """Virtual seconds per real second."""
        return self.duration_s / self.real_s

    def as_json(self) -> dict[str, Any]:
        """The result as ``tableside.sim/1``."""
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "days": self.duration_s / DAY_S,
            "terminals": self.terminals,
            "digest": self.digest,
            "operations": self.operations,
            "faults": self.faults,
            "violations": [{"code": v.code, "text": v.text} for v in self.violations],
            "speed": round(self.speed, 1),
        }


def simulate(config: SimConfig, trace: Callable[[str], None] | None = None) -> SimResult:
    """Run a world from opening to judgement. Everything it writes is in a temporary folder in memory."""
    begun = time.perf_counter()
    shared_memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="tableside-sim-", dir=shared_memory if shared_memory.is_dir() else None)
    )
    loop = VirtualLoop()
    levels = _quiet_logs()
    gc.collect()
    gc.freeze()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(_run(config, folder, trace, begun))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        gc.unfreeze()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        shutil.rmtree(folder)


def _quiet_logs() -> dict[str, int]:
    """A server whose disk is frozen complains; it does so to nobody."""
    names = ("tableside", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return levels


async def _run(
    config: SimConfig, folder: Path, trace: Callable[[str], None] | None, begun: float
) -> SimResult:
    world = World(config.seed, folder, trace)
    with installed(world.network):
        await world.open(config.terminals, config.opening_stock)
        people = [
            world.start(house.Guests(world, terminal, config.order_every_s).run())
            for terminal in world.terminals
        ]
        people.append(world.start(world.office.kitchen(config.restock_every_s, config.restock_most)))
        people.append(world.start(world.office.chef(config.menu_every_s)))
        people.append(world.start(Waiters(world, config.staff_every_s).run()))
        if config.floor_every_s:
            people.append(world.start(Waiters(world, config.floor_every_s, "floor", FLOOR).run()))
        manager = world.start(world.office.manager(config.suspend_every_s))
        faults = world.start(Faults(world, config.faults).run()) if config.faults is not None else None
        await _until(world, config.duration_s, config.stop_at_violation)
        if faults is not None:
            faults.cancel()
            await asyncio.gather(faults, return_exceptions=True)
        for task in people:
            task.cancel()
        hopeless = config.stop_at_violation and bool(world.journal.violations)
        settled = False if hopeless else await _settle(world, manager, config.settle_within_s)
        history = await _close(world, settled)
    violations = world.journal.violations + check(history)
    virtual_s = world.loop.time()
    return SimResult(
        config.seed,
        virtual_s,
        config.terminals,
        world.journal.digest,
        dict(sorted(world.journal.operations.items())),
        dict(sorted(world.journal.faults.items())),
        violations,
        time.perf_counter() - begun,
    )


async def _until(world: World, end_s: float, stop_at_violation: bool) -> None:
    while world.loop.time() < end_s:
        await asyncio.sleep(min(5.0, max(0.001, end_s - world.loop.time())))
        if stop_at_violation and world.journal.violations:
            return


async def _settle(world: World, manager: asyncio.Task[Any], within_s: float) -> bool:
    """Without faults and new orders everything that is queued must be answered."""
    manager.cancel()
    deadline = world.loop.time() + within_s
    try:
        await asyncio.wait_for(world.activate_all(), within_s)
    except TimeoutError:
        world.journal.violated("NOT_CONVERGED", f"no server to talk to for {within_s:g} s")
        return False
    while not world.settled():
        if world.journal.violations and world.loop.time() > deadline - within_s / 2:
            return False
        if world.loop.time() > deadline:
            waiting = {t.device: (t.pending, t.menu_version) for t in world.terminals}
            text = f"after {within_s:g} s, newest menu {world.newest_menu}: pending, menu {waiting}"
            world.journal.violated("NOT_CONVERGED", text)
            return False
        await asyncio.sleep(1.0)
    world.journal.event("settled")
    return True


async def _close(world: World, settled: bool) -> History:
    await world.close()
    try:
        history = read_history(world)
    except sqlite3.DatabaseError as error:
        world.journal.violated("DAMAGED", f"the database cannot be read any more: {error}")
        return History(finished=False)
    history.finished = settled
    world.journal.event("answers", len(history.answers), sorted(history.stock.items()))
    return history


def read_history(world: World) -> History:
    """The history of a world whose server has stopped."""
    history = History(
        submitted=world.submitted,
        replied=world.replied,
        acted=world.acted,
        menus={version: house.prices(menu) for version, menu in world.menus.items()},
    )
    read_books(world.read, history)
    notes = world.read(f"SELECT name, value FROM meta WHERE name LIKE '{house.RESTOCK_NOTE}-%'")
    known = {int(name.rpartition("-")[2]) for name, _ in notes}
    for lost in sorted(world.confirmed_restocks - known):
        world.journal.violated("LOST_CONFIRMED", f"restock {lost} was committed and is gone")
    history.restocked = [Restocked(*_note(value)) for _, value in sorted(notes)]
    return history


def _note(value: str) -> tuple[int, int, int]:
    item, delta, lsn = (int(part) for part in value.split(":"))
    return lsn, item, delta
