"""The whole terminal on CPython against the real server: what is ordered arrives once, whatever happens."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "firmware"))

from boards.host.hostboard import HostBoard  # noqa: E402
from boards.host.nor import Nor  # noqa: E402
from terminal import regions  # noqa: E402
from terminal.app import AppError, Terminal  # noqa: E402
from terminal.console import Console  # noqa: E402

from bench import provision  # noqa: E402
from bench.boards.base import Identity  # noqa: E402
from bench.faults.link import Link  # noqa: E402
from bench.server import BenchServer  # noqa: E402

DEADLINE_S = 20.0
ESPRESSO, FLAT_WHITE = 1, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    folder = tmp_path_factory.mktemp("server")
    server = BenchServer(folder / "state", folder / "server.log", options=["--limit-hello", "50:50"])
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def link(server: BenchServer) -> Iterator[Link]:
    link = Link(server.host, server.port).start()
    yield link
    link.close()


class Table:
    """One provisioned terminal: its flash survives, the terminal itself comes and goes."""

    def __init__(self, folder: Path, who: Identity, port: int) -> None:
        self.who = who
        self.folder = folder
        self.options: dict[str, Any] = {"keepalive_s": 3, "backoff_ms": 200, "agent": True}
        self.nor = Nor(regions.FLASH_BYTES)
        endpoint = provision.Endpoint("127.0.0.1", port)
        record = provision.record(who, endpoint, provision.root_spki())
        self.nor.region(*regions.find(regions.IDENTITY)).writeblocks(0, record, 0)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[str] = []

    def _board(self) -> HostBoard:
        return HostBoard(self.folder, self.nor, self.options)

    def run(self, story: Callable[[Terminal, Console], Awaitable[None]]) -> None:
        """Power on, live the story, pull the plug."""

        async def life() -> None:
            board = self._board()
            terminal = Terminal(board, emit=lambda name, data: self.events.append((name, data)))
            console = Console(terminal, board, self.lines.append)
            running = asyncio.create_task(terminal.run())
            telling = asyncio.create_task(story(terminal, console))
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.wait({running, telling}, return_when=asyncio.FIRST_COMPLETED)
                    if running.done():
                        running.result()
                    telling.result()
            finally:
                print(self.events, self.lines)  # shown when a test fails
                running.cancel()
                telling.cancel()
                await asyncio.gather(running, telling, return_exceptions=True)

        asyncio.run(life())

    def replies(self) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == "reply"]


_numbers = iter(range(1, 9))


@pytest.fixture
def table(server: BenchServer, link: Link, tmp_path: Path) -> Table:
    who = provision.identity(next(_numbers))
    server.register(who)
    link.clear()
    return Table(tmp_path, who, link.port)


async def until(terminal: Terminal, condition: Callable[[], object]) -> None:
    """Wait on the terminal's own signal until the condition holds; the caller's deadline bounds it."""
    while not condition():
        terminal.changed.clear()
        await terminal.changed.wait()


async def settled(terminal: Terminal) -> None:
    await until(terminal, lambda: terminal.ui.online)
    await until(terminal, lambda: len(terminal.outbox) == 0)


def orders_of(server: BenchServer, table: Table) -> list[Any]:
    return [order for order in server.ledger.orders("demo") if order.device == table.who.device]


def test_a_guest_orders_in_words_and_reads_the_number_and_the_total(
    server: BenchServer, table: Table
) -> None:
    async def story(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)
        await console.handle('order 2x espresso + 1x "flat white" with oat milk')
        await settled(terminal)
        await console.handle("orders")

    table.run(story)
    (order,) = orders_of(server, table)
    assert order.total_minor == 990
    assert f"table {table.who.table}: 9.90 EUR, sent to the kitchen" in table.lines
    assert table.lines[-1].endswith(f"order {order.order_number} is in the kitchen, 9.90 EUR")


def test_what_is_ordered_without_a_network_survives_a_power_cut_and_arrives_once(
    server: BenchServer, link: Link, table: Table
) -> None:
    async def first(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)

    async def offline(terminal: Terminal, console: Console) -> None:
        for _ in range(5):
            await console.handle("order espresso")
        assert terminal.ui.screen()["banner"] == "no connection: 5 kept, nothing is lost"

    table.run(first)
    table.options["port"] = 1  # nobody listens there
    table.run(offline)
    del table.options["port"]
    table.run(lambda terminal, console: settled(terminal))
    assert "kept in the terminal until the network is back" in table.lines[-1]
    assert len(orders_of(server, table)) == 5
    assert [reply["status"] for reply in table.replies()] == [0] * 5


def test_a_link_that_is_cut_again_and_again_loses_and_doubles_nothing(
    server: BenchServer, link: Link, table: Table
) -> None:
    async def story(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)
        for turn in range(30):
            terminal.submit([[ESPRESSO, 1, []]])
            if turn % 7 == 3:
                link.cut()
                await until(terminal, lambda: not terminal.ui.online)
                terminal.submit([[FLAT_WHITE, 1, []]])
                await until(terminal, lambda: terminal.ui.online)
        await settled(terminal)

    table.run(story)
    orders = orders_of(server, table)
    assert len(orders) == 34
    assert len({order.op_id for order in orders}) == 34


def test_a_server_that_is_killed_is_met_again_and_every_order_is_answered(
    server: BenchServer, link: Link, table: Table
) -> None:
    async def story(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)
        for _ in range(10):
            terminal.submit([[ESPRESSO, 1, []]])
        server.restart()  # in this thread: the child dies with the thread that started it
        await settled(terminal)

    table.run(story)
    assert len(orders_of(server, table)) == 10


def test_an_item_that_ran_out_is_refused_in_words_and_the_next_order_works(
    server: BenchServer, table: Table
) -> None:
    async def story(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)
        await asyncio.to_thread(server.admin, "stock", "set", "8", "1")
        await console.handle('order 2x "hot chocolate"')
        await settled(terminal)
        assert terminal.ui.notice == "sold out: hot chocolate"
        await console.handle('order 1x "hot chocolate"')
        await settled(terminal)

    table.run(story)
    assert [reply["status"] for reply in table.replies()] == [2, 0]
    assert len(orders_of(server, table)) == 1


def test_a_full_outbox_says_so_and_takes_orders_again_later(server: BenchServer, table: Table) -> None:
    async def learn(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.menu.current() is not None)

    async def fill(terminal: Terminal, console: Console) -> None:
        for _ in range(terminal.outbox.capacity):
            terminal.submit([[ESPRESSO, 1, []]])
        await console.handle("order espresso")
        assert "outbox is full" in table.lines[-1]
        await console.handle('!7 {"do": "order", "lines": [[1, 1, []]]}')
        assert json.loads(table.lines[-1][3:])["error"] == "OUTBOX_FULL"

    async def drain(terminal: Terminal, console: Console) -> None:
        await settled(terminal)
        await console.handle("order espresso")
        await settled(terminal)

    table.run(learn)
    table.options["port"] = 1
    table.run(fill)
    del table.options["port"]
    table.run(drain)
    assert len(orders_of(server, table)) == 129


def test_the_machine_console_answers_every_line_once(server: BenchServer, table: Table) -> None:
    bad = [
        "!1",
        "!2 nonsense",
        "!3 []",
        '!4 {"do": "no such thing"}',
        '!5 {"do": "order"}',
        '!6 {"do": "order", "lines": [[]]}',
        '!7 {"do": "order", "lines": [[1, 0, []]]}',
        '!8 {"do": "order", "lines": [[1, -3, []]]}',
        '!9 {"do": "order", "lines": [[1, 100000, []]]}',
        '!10 {"do": "order", "lines": [[424242, 1, []]]}',
        '!11 {"do": "order", "lines": [[1, 1, [999]]]}',
        '!12 {"do": "order", "lines": []}',
        '!13 {"do": "order", "lines": [["no such item", 1, []]]}',
        '!14 {"do": "add", "item": {}}',
        '!15 {"do": "wait", "for": "godot"}',
        '!16 {"do": "wait", "for": "idle", "ms": "soon"}',
        '!17 {"do": "order", "lines": [["espresso", "two", []]]}',
    ]
    good = [
        '!20 {"do": "info"}',
        '!21 {"do": "heap"}',
        '!22 {"do": "stats"}',
        '!23 {"do": "screen"}',
        '!24 {"do": "menu", "find": "flat"}',
        '!25 {"do": "add", "item": "flat", "quantity": 2, "modifiers": ["oat"]}',
        '!26 {"do": "submit"}',
        '!27 {"do": "orders"}',
    ]

    async def story(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)
        for line in [*bad, *good]:
            await console.handle(line)
        await settled(terminal)

    table.run(story)
    answers = dict(line[1:].partition(" ")[::2] for line in table.lines if line.startswith("="))
    assert list(answers) == [line[1:].partition(" ")[0] for line in [*bad, *good]]
    for number, answer in answers.items():
        assert json.loads(answer)["ok"] is (int(number) >= 20), (number, answer)
    assert json.loads(answers["24"])["items"] == [[3, "flat white", 420]]
    assert [order.total_minor for order in orders_of(server, table)] == [940]


def test_people_are_answered_in_words_whatever_they_type(server: BenchServer, table: Table) -> None:
    said: dict[str, list[str]] = {}
    lines = [
        "help", "HELP", "menu", "menu flat", "menu currywurst", "basket", "submit", "add", "add 2x espresso",
        "add espresso + currywurst", "basket", "clear", "order", 'order "flat white', "order c",
        "order rib-eye", "order 0x espresso", "orders", "status", "update", "nonsense", "__init__", "speak",
        "cancel 99", "pay",
    ]  # fmt: skip

    async def story(terminal: Terminal, console: Console) -> None:
        await until(terminal, lambda: terminal.ui.online)
        for line in lines:
            before = len(table.lines)
            await console.handle(line)
            said[line] = table.lines[before:]

    table.run(story)
    assert [line for line in lines if not said[line]] == []
    assert said["basket"][-1] == "  together 5.20 EUR"  # all of a wish goes into the basket, or nothing
    assert len(said["menu"]) > 60
    assert said["order c"][0].startswith('"c" could be: cappuccino')
    assert all("not a command" in said[line][0] for line in ("nonsense", "__init__", "speak"))
    assert orders_of(server, table) == []


def test_a_blank_terminal_says_that_it_needs_provisioning(tmp_path: Path) -> None:
    with pytest.raises(AppError) as caught:
        Terminal(HostBoard(tmp_path, Nor(regions.FLASH_BYTES)))
    assert caught.value.code == "NOT_PROVISIONED"
