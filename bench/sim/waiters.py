"""Staff of the simulated restaurant: the jobs the HTTP API runs, on the server that is up at the time.

A call that a dying server did not answer is made again under its idempotency key until there is an answer,
as a till would do it; so what came of it is always known in the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from bench import staff
from bench.history.events import Acted
from bench.sim.clock import EPOCH_S
from server.domain.errors import HouseError
from server.service.service import Service
from server.storage.database import StorageError
from server.storage.transaction import Transaction
from server.storage.writer import QueueFull
from server.web.access import Caller, Role
from server.web.idempotency import Call, Once, Stored

if TYPE_CHECKING:
    from bench.sim.server import SimServer
    from bench.sim.world import World

TILL = Caller("till", Role.MANAGER, "anna", None, None)
SPARE_TABLES = ("101", "102", "103", "104")
PATIENCE_S = 5.0
OTHER_TILL = 1_000_000  # its calls are numbered from here
ANSWER_LOST = 0.1  # how often


class _Refused(Exception):
    """A refusal and the LSN after which it was judged."""

    def __init__(self, error: HouseError, after_lsn: int) -> None:
        super().__init__(str(error))
        self.code = error.code
        self.after_lsn = after_lsn


@dataclass(frozen=True, slots=True)
class _Judged:
    """The job of a call; what the house refuses is told with the moment of it."""

    site: str
    job: Once

    def __call__(self, transaction: Transaction) -> Stored:
        try:
            return self.job(transaction)
        except HouseError as error:
            row = transaction.execute("SELECT lsn FROM site WHERE site = ?", (self.site,)).fetchone()
            raise _Refused(error, int(row[0]) - 1) from error  # the job had taken the next one


class Waiters:
    """One till: one action every ``every_s`` on average, of the kinds in ``does`` or of every usual kind."""

    def __init__(
        self, world: World, every_s: float, name: str = "waiters", does: Mapping[str, int] | None = None
    ) -> None:
        self._world = world
        self._every_s = every_s
        self._random = world.random.fork(name)
        self._staff = staff.Staff(self._random.draw, EPOCH_S + 86_400)
        self._number = 0
        if does is not None:
            self._staff.weights = does
            self._number = OTHER_TILL
        self._tables = [terminal.who.table for terminal in world.terminals] + list(SPARE_TABLES)

    async def run(self) -> None:
        """Serve until cancelled; what was begun is brought to its end."""
        while True:
            await asyncio.sleep(self._random.about(self._every_s))
            server = self._world.server
            if server is None or not server.machine.alive or server.server is None:
                continue
            action = self._staff.decide(staff.look(self._world.rows(server), self._tables))
            if action is not None:
                await asyncio.shield(self._world.start(self._see_through(action)))

    async def _see_through(self, action: staff.Action) -> None:
        world, at_s = self._world, self._world.loop.time()
        self._number += 1
        world.unanswered += 1
        key = f"sim-{self._number}"
        while True:
            server = world.server
            if server is not None and server.machine.alive and server.server is not None:
                acted = await self._try(server, action, key, at_s)
                if acted is not None:
                    break
            await asyncio.sleep(self._random.about(1.0))
        world.unanswered -= 1
        world.acted.append(acted)
        if acted.lsn and self._random.chance(ANSWER_LOST):
            await self._ask_again(action, key, acted)
        world.journal.operations[action.kind if acted.lsn else "staff_refused"] += 1
        world.journal.event("staff", action.kind, dict(action.args), acted.lsn, acted.code)

    async def _ask_again(self, action: staff.Action, key: str, acted: Acted) -> None:
        """The answer got lost on its way to the till: the same call must get the same answer."""
        server = self._world.server
        if server is None or not server.machine.alive or server.server is None:
            return
        again = await self._try(server, action, key, acted.at_s)
        if again is not None and (again.lsn, again.result) != (acted.lsn, acted.result):
            self._world.journal.violated("ANSWER_CHANGED", f"{action}: {acted.result}, again {again}")
            self._world.acted.append(again)

    async def _try(self, server: SimServer, action: staff.Action, key: str, at_s: float) -> Acted | None:
        """What came of one attempt, None where nobody can know yet."""
        site, now_s, running = self._world.site, server.clock.unix_time(), server.server
        assert running is not None
        if running._writer is None:
            return None
        change = staff.job(Service(running._catalogue, server.clock), "manager:anna", action)
        call = Call(TILL, key, sha256(repr(action).encode()).digest(), now_s)
        work = server.machine.run(running._writer.run(_Judged(site, Once(site, call, change))))
        done, _ = await asyncio.wait([work], timeout=PATIENCE_S)
        if not done or work.cancelled() or not server.machine.alive:
            return None
        error, done_s = work.exception(), self._world.loop.time()
        if isinstance(error, _Refused):
            return Acted(at_s, done_s, action.kind, action.args, code=error.code, after_lsn=error.after_lsn)
        if isinstance(error, (StorageError, QueueFull)):
            return None
        if error is not None:
            self._world.journal.violated("STAFF_FAULT", f"{action}: {error!r}")
            return Acted(at_s, done_s, action.kind, action.args, code="fault")
        stored = work.result()
        if not stored.repeated:
            running.notices.tell(change.notices)
        return told(at_s, done_s, action, stored.body)


def told(at_s: float, done_s: float, action: staff.Action, body: bytes) -> Acted:
    """An action that was done, with the JSON it was answered with."""
    result: dict[str, Any] = json.loads(body)
    return Acted(at_s, done_s, action.kind, action.args, lsn=int(result["lsn"]), result=result)
