"""One simulated restaurant: the composition of every part, and what may happen to it."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import provision
from bench.history.events import Acted, Replied, Reply, Submitted
from bench.paths import DEMO_MENU
from bench.sim import house, keys
from bench.sim.clock import EPOCH_S, WallClock, owner
from bench.sim.journal import Journal
from bench.sim.network import Network
from bench.sim.randomness import Seeded
from bench.sim.server import SimServer
from bench.sim.terminal import SimTerminal
from bench.sim.waiters import SPARE_TABLES
from bench.sim.watch import Watch
from server.devices.records import DeviceState
from server.storage import admin
from server.transport.limits import Limits, Rate
from server.wire.menus import Menu
from server.wire.rsa import spki_of

SITE = "demo"
# Tight enough that two quick orders of one terminal may meet them.
LIMITS = Limits(op_device=Rate(1.0, 2.0), hello_device=Rate(0.5, 5.0))


class World:
    """Server, terminals and people on one virtual timeline."""

    def __init__(self, seed: int, folder: Path, trace: Callable[[str], None] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.site = SITE
        self.folder = folder
        self.random = Seeded(seed, "run")
        self.journal = Journal(self.loop.time, trace)
        self.network = Network(self.loop, self.random.fork("network"), self._packet_fault)
        self.clock = WallClock(self.loop)
        self.menus: dict[int, Menu] = {}
        self.submitted: list[Submitted] = []
        self.replied: list[Replied] = []
        self.acted: list[Acted] = []
        self.confirmed_restocks: set[int] = set()
        self.newest_menu = 1
        self.server: SimServer | None = None
        self.server_starts = 0
        self._files: dict[str, bytes] = {}
        self._keys = folder / "keys"
        self.unanswered = 0  # calls of staff that are not seen through yet
        self._tasks: set[asyncio.Task[Any]] = set()
        self._quiet = False
        self.terminals: list[SimTerminal] = []
        self.watch = Watch(self)

    # ------------------------------------------------------------------ beginning and end

    async def open(self, terminals: int, opening_stock: int) -> None:
        """Make the site, start the server, switch every terminal on."""
        self._make_terminals(terminals)
        keys.make_site_keys(self._keys, SITE, EPOCH_S)
        await self._start_server()
        server = self._need_server()
        office = server.office()
        for terminal in self.terminals:
            admin.add_device(
                office,
                SITE,
                terminal.device,
                table=terminal.who.table,
                spki=spki_of(provision.private_key(terminal.who).public_key()),
                password_hash=keys.cheap_password_hash(terminal.who.password, terminal.device.encode()),
                state=DeviceState.ACTIVE,
                now_s=EPOCH_S,
            )
        menu = house.demo_menu()
        self.menus[menu.version] = menu
        people = house.Office(self)
        self.office = people
        for item in house.COUNTED:
            people.restock(item, opening_stock)
        with office.begin() as connection:
            for table in SPARE_TABLES:
                connection.exec_driver_sql(
                    "INSERT INTO dining_table (site, table_id) VALUES (?, ?)", (SITE, table)
                )
        await asyncio.sleep(1.0)  # the server looks for changes five times a second
        for terminal in self.terminals:
            terminal.power_on()

    def _make_terminals(self, terminals: int) -> None:
        self.terminals = [
            SimTerminal(
                number,
                keys.terminal_identity(number, SITE),
                self.folder / "terminals",
                self.random.fork(f"terminal-{number}"),
                self._emitted,
                self.cut_terminal,
            )
            for number in range(1, terminals + 1)
        ]

    async def close(self) -> None:
        """Stop everything in an orderly way, the server last."""
        self._quiet = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for terminal in self.terminals:
            terminal.cut()
            await terminal.bury()
        if self.server is not None:
            if self.server.machine.alive:
                await self.server.stop()
            else:
                await self.server.bury()

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run something of the world's own, outside every machine; its failure is the run's."""
        context = contextvars.copy_context()  # of whoever caused it: perhaps a machine that is dying
        context.run(owner.set, None)
        task = self.loop.create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.journal.violated("SIMULATION", repr(task.exception()))

    # ------------------------------------------------------------------ the server's machine

    async def _start_server(self) -> None:
        self.server_starts += 1
        server = SimServer(
            self.server_starts,
            self.folder,
            self.network,
            self.clock,
            self.random,
            {"demo_menu": DEMO_MENU, "limits": LIMITS},
        )
        server.inherit(self._keys, self._files)
        server.seen = self.watch.frame_arrived
        server.sent = self.watch.reply_leaves
        self.server = server
        self.watch.new_server(server)
        try:
            await server.start()
        except Exception as error:  # noqa: BLE001 - a server that does not come up is what we look for
            if server.machine.alive:
                self.journal.violated("NO_START", f"the server does not start: {error!r}")
                self.kill_server("server_kill")
            return
        if server.machine.alive:
            self.journal.event("server_up", self.server_starts)
            self.watch.server_is_up(server)

    def kill_server(self, reason: str) -> None:
        """Cut the power of the server's machine, now, and let it come back a little later; counts as that."""
        server = self.server
        if server is None or not server.machine.alive or self._quiet:
            return
        self.journal.fault(reason)
        self._files = server.cut()
        self.start(self._bring_back(server))

    def kill_at_disk_step(self, steps: int) -> None:
        """Cut it right before its n-th write or sync from now."""
        server = self.server
        if server is None or not server.machine.alive:
            return
        due = server.disk.steps + steps

        def strike() -> None:
            if server.disk.steps >= due:
                server.disk.on_step = None
                self.kill_server("server_kill_at_disk_step")

        server.disk.on_step = strike

    async def _bring_back(self, server: SimServer) -> None:
        await server.bury()
        self._keys = server.state / "keys"
        await asyncio.sleep(self.random.fork(f"down-{self.server_starts}").about(3.0))
        await self._start_server()

    def amnesia(self) -> None:
        """The broker loses what it keeps in memory."""
        server = self.server
        if server is not None and server.machine.alive and server.broker is not None:
            self.journal.fault("amnesia")
            server.broker.forget_sessions()

    def _need_server(self) -> SimServer:
        if self.server is None:
            raise RuntimeError("the server was never started")
        return self.server

    # ------------------------------------------------------------------ the terminals' machines

    def cut_terminal(self, number: int, fault: str = "power_cut") -> None:
        """Cut a terminal's power, now, and let it come back a little later; counted as ``fault``."""
        terminal = self.terminals[number - 1]
        if not terminal.machine.alive or self._quiet:
            return
        self.journal.fault(fault, number)
        terminal.cut()
        self.network.cut_terminal(number)
        self.start(self._power_again(terminal))

    def tear_page(self, number: int, step: int, keep: int, seed: int) -> None:
        """Cut it inside its n-th flash step from now."""
        terminal = self.terminals[number - 1]
        if terminal.machine.alive:
            terminal.cut_at(step, keep, seed)

    async def _power_again(self, terminal: SimTerminal) -> None:
        await terminal.bury()
        await asyncio.sleep(self.random.fork(f"dark-{terminal.number}-{terminal.boots}").about(6.0))
        terminal.power_on()

    def _emitted(self, name: str, data: dict[str, Any]) -> None:
        journal, device = self.journal, data["device"]
        if name == "reply":
            fields = ("status", "arg", "order", "total", "lsn")
            reply = Reply(*(data[field] for field in fields))
            self.replied.append(Replied(self.loop.time(), device, bytes.fromhex(data["op"]), reply))
            journal.operations["answers"] += 1
            journal.event("reply", device, data["op"], *(data[field] for field in fields))
        elif name in ("online", "offline", "session", "menu", "ready"):
            what = data.get("reason") or data.get("version") or ""
            journal.event(name, device, what)
        elif name == "crash" or (name == "error" and data["code"] == "HANDLER_FAULT"):
            journal.violated("FIRMWARE", f"{device}: {data['code']}: {data['text']}")
        elif name == "error":
            journal.event("error", device, data["code"])

    def _packet_fault(self, name: str) -> None:
        self.journal.faults[name] += 1

    # ------------------------------------------------------------------ end of the run

    async def activate_all(self) -> None:
        """Take every suspended terminal back."""
        for terminal in self.terminals:
            while not self.office.activate(terminal.device):  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(1.0)

    def settled(self) -> bool:
        """Whether everything has power, every outbox is empty and every terminal has the newest menu."""
        server = self.server
        if server is None or not server.machine.alive or self.unanswered:
            return False
        return all(
            terminal.running and terminal.pending == 0 and terminal.menu_version >= self.newest_menu
            for terminal in self.terminals
        )

    def rows(self, server: SimServer) -> Callable[[str], list[Any]]:
        """Reads what is committed on a server that is up."""
        reader = self.watch.reader(server)
        return lambda sql: reader.execute(sql).fetchall()

    def read(self, sql: str) -> list[Any]:
        """Rows from the closed database."""
        connection = sqlite3.connect(self._need_server().state / "tableside.db")
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
