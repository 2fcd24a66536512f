"""When and where things go wrong: every fault is drawn from the run's seed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.sim.network import NO_PACKET_FAULTS, PacketFaults

if TYPE_CHECKING:
    from bench.sim.world import World


@dataclass(frozen=True)
class FaultPlan:
    """Mean times between faults in seconds of virtual time; those of terminals are per terminal."""

    packets: PacketFaults = field(default_factory=PacketFaults)
    server_kill_s: float = 400.0
    amnesia_s: float = 700.0
    clock_jump_s: float = 800.0
    disk_full_s: float = 900.0
    power_cut_s: float = 1500.0
    reset_s: float = 900.0
    half_open_s: float = 1800.0


class Faults:
    """Does the faults of a plan to a world until it is cancelled."""

    def __init__(self, world: World, plan: FaultPlan) -> None:
        self._world = world
        self._plan = plan
        self._random = world.random.fork("faults")

    async def run(self) -> None:
        """All kinds at once."""
        world, plan = self._world, self._plan
        world.network.faults = plan.packets
        try:
            parts = [self._kills(), self._amnesias(), self._clock_jumps(), self._full_disks()]
            for terminal in world.terminals:
                parts += [
                    self._power_cuts(terminal.number),
                    self._resets(terminal.number),
                    self._half_opens(terminal.number),
                ]
            await asyncio.gather(*parts)
        finally:
            world.network.faults = NO_PACKET_FAULTS

    async def _kills(self) -> None:
        """Kill the server: half of the time at any moment, else at a write or sync of its disk to come."""
        random = self._random.fork("kills")
        while True:
            await asyncio.sleep(random.about(self._plan.server_kill_s))
            if random.chance(0.4):
                self._world.kill_server("server_kill")
            else:
                self._world.kill_at_disk_step(random.draw.randrange(1, 14))

    async def _amnesias(self) -> None:
        """The broker forgets every session and connection."""
        random = self._random.fork("amnesia")
        while True:
            await asyncio.sleep(random.about(self._plan.amnesia_s))
            self._world.amnesia()

    async def _full_disks(self) -> None:
        """The server's disk takes nothing for a while."""
        random = self._random.fork("disk-full")
        while True:
            await asyncio.sleep(random.about(self._plan.disk_full_s))
            server = self._world.server
            if server is None or not server.machine.alive:
                continue
            self._world.journal.fault("disk_full")
            server.disk.full = True
            try:
                await asyncio.sleep(random.about(4.0))
            finally:
                server.disk.full = False

    async def _clock_jumps(self) -> None:
        """The server's wall clock jumps, forwards more often than backwards, and is set right later."""
        random = self._random.fork("clock")
        clock = self._world.clock
        while True:
            await asyncio.sleep(random.about(self._plan.clock_jump_s))
            jump_s = random.draw.choice((-120, -30, -5, 2, 10, 60, 300, 900, 7200))
            clock.offset_s += jump_s
            self._world.journal.fault("clock_jump", jump_s)
            await asyncio.sleep(random.about(120.0))
            clock.offset_s -= jump_s
            self._world.journal.fault("clock_jump", -jump_s)

    async def _power_cuts(self, number: int) -> None:
        """Cut a terminal's power: at any moment, or inside a flash step to come (a torn page)."""
        random = self._random.fork(f"power-{number}")
        while True:
            await asyncio.sleep(random.about(self._plan.power_cut_s))
            if random.chance(0.4):
                self._world.cut_terminal(number)
            else:
                step = random.draw.randrange(1, 30)
                keep = random.draw.choice((-1, 0, 1, 7, 64, 200, 256))
                self._world.tear_page(
                    number, step, keep, random.draw.choice((0, random.draw.randrange(1, 1 << 30)))
                )

    async def _resets(self, number: int) -> None:
        random = self._random.fork(f"reset-{number}")
        while True:
            await asyncio.sleep(random.about(self._plan.reset_s))
            for wire in list(self._world.network.wires.get(number, [])):
                self._world.journal.fault("reset", number)
                wire.reset()

    async def _half_opens(self, number: int) -> None:
        random = self._random.fork(f"half-{number}")
        while True:
            await asyncio.sleep(random.about(self._plan.half_open_s))
            up, down = random.draw.choice(((True, True), (True, False), (False, True)))
            for wire in list(self._world.network.wires.get(number, [])):
                self._world.journal.fault("half_open", number, up, down)
                wire.go_half_open(up, down)
