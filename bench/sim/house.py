"""The people of the simulated restaurant: guests who order, a kitchen that restocks, an office."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from bench.history.events import Line, MenuPrices, Submitted
from bench.paths import DEMO_MENU
from bench.sim import firmware
from bench.sim.randomness import Seeded
from server.devices.records import DeviceState
from server.errors import ServerError
from server.ordering.price_list import ROUND_PER_BILL
from server.storage import admin
from server.wire.menufile import parse_menu
from server.wire.menus import Menu

if TYPE_CHECKING:
    from bench.sim.terminal import SimTerminal
    from bench.sim.world import World

COUNTED = (1, 3, 20)  # items that can sell out
RESTOCK_NOTE = "sim-restock"
_COUNTED_AS = {
    "order": "orders", "change": "changes", "cancel": "cancels", "call": "calls", "bill": "bill_requests",
    "pay": "bill_closes",
}  # fmt: skip


def demo_menu() -> Menu:
    """The menu the house opens with."""
    return parse_menu(DEMO_MENU.read_text("utf-8"))


def prices(menu: Menu) -> MenuPrices:
    """What the model knows of a menu."""
    deltas = {m.id: m.delta_minor for group in menu.groups for m in group.modifiers}
    rates = {tax.id: tax.basis_points for tax in menu.taxes}
    return MenuPrices(
        {item.id: item.price_minor for item in menu.items},
        deltas,
        {item.id: rates[item.tax_id] for item in menu.items},
        menu.rounding == ROUND_PER_BILL,
    )


def order_lines(menu: Menu, random: Seeded) -> list[list[Any]]:
    """One to four lines a guest might want, within the modifiers' rules."""
    groups = {group.id: group for group in menu.groups}
    lines = []
    for _ in range(random.draw.choice((1, 1, 2, 2, 3, 4))):
        item = random.draw.choice(menu.items)
        if random.chance(0.3):
            scarce = random.draw.choice(COUNTED)
            item = next(entry for entry in menu.items if entry.id == scarce)
        chosen = []
        for number in item.groups:
            group = groups[number]
            count = group.minimum
            if group.maximum > count and random.chance(0.3):
                count += 1
            chosen += [random.draw.choice(group.modifiers).id for _ in range(count)]
        lines.append([item.id, random.draw.choice((1, 1, 1, 2, 3)), chosen])
    return lines


class Guests:
    """Orders at one terminal, one every ``every_s`` on average."""

    def __init__(self, world: World, terminal: SimTerminal, every_s: float) -> None:
        self._world = world
        self._terminal = terminal
        self._every_s = every_s
        self._random = world.random.fork(f"guests-{terminal.number}")
        self._ordered: list[bytes] = []
        self._sealed: object = None  # the claim that was last tried to seal

    async def run(self) -> None:
        """Order until cancelled."""
        while True:
            wait_s = self._every_s * (0.5 + self._random.draw.random())
            if self._random.chance(0.05):
                wait_s = 0.001  # two orders at once
            await asyncio.sleep(wait_s)
            if self._terminal.running:
                self._ask()

    def _ask(self) -> None:
        """One thing a guest wants: mostly an order, now and then something about an older one."""
        world, terminal = self._world, self._terminal
        app = terminal.app
        info = app.menu.current()
        menu = world.menus.get(info.version) if info is not None else None
        if menu is None:
            return
        claim = app.tally.claim
        if claim is not None and self._random.chance(0.05 if claim == self._sealed else 0.5):
            self._sealed = claim
            terminal.machine.run(self._pay(app))
            return
        kind = self._random.draw.choices(("order", "change", "cancel", "call", "bill"), (82, 8, 4, 3, 3))[0]
        target = self._random.draw.choice(self._ordered) if self._ordered else b""
        if not target and kind in ("change", "cancel"):
            kind = "order"  # nothing to change yet
        lines = order_lines(menu, self._random) if kind in ("order", "change") else []
        table = app.ui.table
        try:
            op_id, total = self._submit(app, kind, lines, target)
        except firmware.module("terminal.flashlog").StorageError as error:
            self._turned_away(error.code)
            return
        wanted = tuple((item, quantity, tuple(chosen)) for item, quantity, chosen in lines)
        about = target if kind in ("change", "cancel") else b""
        self._submitted(kind, op_id, table, info.version, total, wanted, about)
        if kind == "order":
            self._ordered = [*self._ordered[-4:], op_id]

    async def _pay(self, app: Any) -> None:
        """Seal the bill that was asked for; the power may fail while it is computed."""
        begun_s, table = self._world.loop.time(), app.ui.table
        refusals = (
            firmware.module("terminal.flashlog").StorageError,
            firmware.module("terminal.ui").UiError,
        )
        try:
            claim = app.requests().claim()  # answers that wait may change it
            op_id = await app.requests().pay()
        except refusals as error:
            self._turned_away(error.code)
            return
        info = app.menu.current()
        self._submitted(
            "pay", bytes(op_id), table, info.version, claim.total, (), claim.last, claim.bill, begun_s
        )

    def _turned_away(self, code: str) -> None:
        self._world.journal.event("turned_away", self._terminal.device, code)
        self._world.journal.operations["turned_away"] += 1

    def _submitted(
        self,
        kind: str,
        op_id: bytes,
        table: str,
        menu: int,
        total: int,
        wanted: tuple[Line, ...] = (),
        about: bytes = b"",
        bill: int = 0,
        at_s: float | None = None,
    ) -> None:
        world, terminal = self._world, self._terminal
        told = terminal.machine.alive
        now_s = world.loop.time() if at_s is None else at_s
        world.submitted.append(
            Submitted(now_s, terminal.device, op_id, table, menu, total, wanted, told, kind, about, bill)
        )
        world.journal.operations[_COUNTED_AS[kind]] += 1
        world.journal.event(kind, terminal.device, op_id.hex(), total, wanted, about.hex(), bill, told)

    @staticmethod
    def _submit(app: Any, kind: str, lines: list[list[Any]], target: bytes) -> tuple[bytes, int]:
        """(op id, total shown). Raises: the firmware's StorageError."""
        if kind == "order":
            op_id, total = app.submit(lines)
        elif kind == "change":
            op_id, total = app.requests().change(target.hex(), lines)
        elif kind == "cancel":
            op_id, total = app.requests().cancel(target.hex()), 0
        elif kind == "bill":
            op_id, total = app.requests().bill(), 0
        else:
            op_id, total = app.requests().call(3), 0
        return bytes(op_id), int(total)


class Office:
    """Publishes menus, counts stock and suspends terminals, as another program on the same database."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random.fork("office")
        self._restocks = 0

    async def kitchen(self, every_s: float, most: int) -> None:
        """Restock counted items."""
        while True:
            await asyncio.sleep(self._random.about(every_s))
            self.restock(self._random.draw.choice(COUNTED), self._random.draw.randrange(1, most))

    async def chef(self, every_s: float) -> None:
        """Publish menus with other prices."""
        while True:
            await asyncio.sleep(self._random.about(every_s))
            self.publish()

    async def manager(self, every_s: float) -> None:
        """Suspend a terminal and take it back."""
        while True:
            await asyncio.sleep(self._random.about(every_s))
            device = self._random.draw.choice(self._world.terminals).device
            if self._set(device, DeviceState.SUSPENDED):
                self._world.journal.operations["suspensions"] += 1
                await asyncio.sleep(self._random.about(30.0))
                while not self._set(device, DeviceState.ACTIVE):  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(5.0)

    def restock(self, item: int, delta: int) -> None:
        """Add to an item's stock; a note in the same transaction says at which LSN."""
        server = self._world.server
        if server is None or not server.machine.alive:
            return
        self._restocks += 1
        site = self._world.site
        try:
            with server.office().admin() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO stock (site, item, count) VALUES (?, ?, ?) "
                    "ON CONFLICT (site, item) DO UPDATE SET count = count + excluded.count",
                    (site, item, delta),
                )
                connection.exec_driver_sql(
                    "INSERT INTO meta (name, value) SELECT ?, ? || lsn FROM site WHERE site = ?",
                    (f"{RESTOCK_NOTE}-{self._restocks}", f"{item}:{delta}:", site),
                )
        except Exception as error:  # noqa: BLE001 - a database that dies here is the fault, not the news
            self._world.journal.event("restock_failed", type(error).__name__)
            return
        if server.machine.alive:
            self._world.confirmed_restocks.add(self._restocks)
            self._world.journal.operations["restocks"] += 1
            self._world.journal.event("restock", item, delta)

    def publish(self) -> None:
        """A new menu version in which some prices differ."""
        world = self._world
        server = world.server
        if server is None or not server.machine.alive or server.server is None:
            return
        newest = world.menus[max(world.menus)]
        version = newest.version + 1
        items = tuple(
            replace(item, price_minor=max(10, item.price_minor + self._random.draw.randrange(-30, 40)))
            if self._random.chance(0.2)
            else item
            for item in newest.items
        )
        menu = replace(newest, version=version, items=items)
        world.menus[version] = menu
        frame = menu.seal(server.server._keystore.server_sign, world.site)
        try:
            admin.publish_menu(server.office(), world.site, version, frame, server.clock.unix_time())
        except Exception as error:  # noqa: BLE001 - as above
            world.journal.event("publish_failed", type(error).__name__)
            return
        if server.machine.alive:
            world.newest_menu = version
        world.journal.operations["menus"] += 1
        world.journal.event("menu", version)

    def activate(self, device: str) -> bool:
        """Take a terminal back; False while there is no server to tell."""
        return self._set(device, DeviceState.ACTIVE)

    def _set(self, device: str, state: DeviceState) -> bool:
        server = self._world.server
        if server is None or not server.machine.alive:
            return False
        try:
            admin.change_device(server.office(), self._world.site, device, state)
        except (ServerError, SQLAlchemyError):  # away, full or dying: the manager tries again
            return False
        self._world.journal.event("device", device, state)
        return server.machine.alive
