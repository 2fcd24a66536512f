"""kill -9 under load: what was answered is stored, what is stored happened once, and the books balance."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from server_bench import SITE, a_server, online, prepare_state, run

from bench.benchmarks.load_client import LinkError, SoftTerminal
from bench.server import BenchServer
from server.storage.ledger import Ledger
from server.wire.ops import Line, Op, Reply, Status

ESPRESSO, ESPRESSO_MINOR = 1, 260
STOCK = 500
KILLS = 3
LOAD_S = 0.5


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


class Guest:
    """A terminal that keeps its journal: an op stays until a sealed final reply arrived."""

    def __init__(self, terminal: SoftTerminal) -> None:
        self.terminal = terminal
        self.journal: dict[bytes, Op] = {}
        self.sent: dict[bytes, Op] = {}
        self.answers: dict[bytes, Reply] = {}
        self.changed_answers = 0
        terminal.on_reply = self.take

    def take(self, reply: Reply) -> None:
        """A verified reply."""
        before = self.answers.setdefault(reply.op_id, reply)
        self.changed_answers += before != reply
        self.journal.pop(reply.op_id, None)

    async def order_until_the_connection_ends(self, window: int) -> None:
        """Resend what is in the journal, then order as fast as answers come."""
        for op in list(self.journal.values()):
            self.terminal.send(op)
        link = self.terminal.link
        assert link is not None
        while not link.closed.done():
            while len(self.journal) < window:
                op = self.terminal.make_op((Line(ESPRESSO, 1),), ESPRESSO_MINOR)
                self.journal[op.op_id] = self.sent[op.op_id] = op
                self.terminal.send(op)
            await asyncio.wait({link.closed}, timeout=0.005)

    async def settle(self) -> None:
        """Resend until everything is answered."""
        while self.journal:
            for op in list(self.journal.values()):
                self.terminal.send(op)
            await asyncio.sleep(0.3)


def test_kill_9_under_load_loses_no_confirmed_order_and_doubles_none(template: Path, tmp_path: Path) -> None:
    with a_server(template, tmp_path) as server:
        server.admin("stock", "set", str(ESPRESSO), str(STOCK))

        async def scenario() -> None:
            guests = [Guest(await online(server, number, clean=False)) for number in (1, 2, 3)]
            for _ in range(KILLS):
                load = [asyncio.create_task(guest.order_until_the_connection_ends(8)) for guest in guests]
                await asyncio.sleep(LOAD_S)
                server.restart()  # kill -9; the port stays
                await asyncio.gather(*load)
                check_confirmed(server, guests)
                for guest in guests:
                    with suppress(LinkError):
                        await guest.terminal.connect(server.host, server.port, clean=False)
            await asyncio.gather(*[guest.settle() for guest in guests])
            check_books(server, guests)

        run(scenario())


def check_confirmed(server: BenchServer, guests: list[Guest]) -> None:
    """Every reply a terminal holds is in the ledger, as it was given."""
    stored = {(answer.device, answer.op_id): answer for answer in server.ledger.answers(SITE)}
    for guest in guests:
        for op_id, reply in guest.answers.items():
            answer = stored[guest.terminal.device, op_id]
            assert (answer.status, answer.order_number, answer.lsn, answer.chain) == (
                reply.status, reply.order_number, reply.lsn, reply.chain,
            )  # fmt: skip


def check_books(server: BenchServer, guests: list[Guest]) -> None:
    """One answer per op, one order per committed answer, stock and chains exact."""
    ledger: Ledger = server.ledger
    answers, orders = ledger.answers(SITE), ledger.orders(SITE)
    assert sum(guest.changed_answers for guest in guests) == 0
    assert Counter(answer.device for answer in answers) == Counter(
        {guest.terminal.device: len(guest.sent) for guest in guests}
    )
    committed = [answer for answer in answers if answer.status == Status.COMMITTED]
    assert [(o.device, o.op_id) for o in orders] == [(a.device, a.op_id) for a in committed]
    assert [order.order_number for order in orders] == list(range(1, len(orders) + 1))
    assert ledger.stock(SITE) == {ESPRESSO: STOCK - len(orders)}
    assert all(a.status in (Status.COMMITTED, Status.SOLD_OUT) for a in answers)
    chains = {device: bytes(32) for device in ("t-0001", "t-0002", "t-0003")}
    for answer in answers:
        link = answer.op_hash + bytes((answer.status,)) + answer.total_minor.to_bytes(4, "big")
        chains[answer.device] = sha256(chains[answer.device] + link).digest()
        assert answer.chain == chains[answer.device]


def test_a_disk_that_takes_no_more_acknowledges_nothing_and_the_server_recovers(
    template: Path, tmp_path: Path
) -> None:
    with a_server(template, tmp_path) as server:
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)

        async def scenario() -> None:
            guest = Guest(await online(server, clean=False))
            wal = server.state / "tableside.db-wal"
            limit = wal.stat().st_size + 40_000
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, hard))
            await guest.order_until_the_connection_ends(8)
            link = guest.terminal.link
            assert link is not None
            assert link.unacked, "what could not be stored is not acknowledged"
            assert set(guest.answers) == {answer.op_id for answer in server.ledger.answers(SITE)}
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
            await guest.terminal.connect(server.host, server.port, clean=False)
            await guest.settle()
            assert {order.op_id for order in server.ledger.orders(SITE)} == set(guest.sent)
            assert guest.changed_answers == 0

        run(scenario())
        assert "refused a commit" in server.log_text()
