"""An evening at one table through a real server process: order, change, call, bill, seal, evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from server_bench import KEYS, SITE, a_server, eventually, online, prepare_state, run, soon

from bench.benchmarks.load_client import SoftTerminal
from bench.server import BenchServer
from server.cli import main
from server.devices.keyfiles import load_signer
from server.domain.seals import ChainLink, claim_for
from server.storage.ledger import Ledger
from server.wire.cose import parse_mac0
from server.wire.notices import Notice, NoticeKind
from server.wire.ops import Line, Op, OpType, RejectCode, Reply, Status
from server.wire.requests import BillClose, BillRequest, Body, CallWaiter, Cancel, Change

ESPRESSO, ESPRESSO_MINOR = 1, 260


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


@pytest.fixture
def server(template: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    with a_server(template, tmp_path) as running:
        yield running


class Table:
    """A software terminal that keeps the chain of its answers."""

    def __init__(self, guest: SoftTerminal) -> None:
        self.guest = guest
        self.links: list[ChainLink] = []
        self.notices: list[Notice] = []
        guest.on_other = self._other

    def _other(self, topic: str, payload: bytes) -> None:
        if topic.endswith("/notice"):
            self.notices.append(Notice.from_payload(parse_mac0(payload, 4, 256).payload)[1])

    async def ask(self, op_type: int, body: Body | None, *lines: Line, total: int = 0) -> Reply:
        """Send an op and take its answer into the chain."""
        order = self.guest.make_op(lines, total)
        op: Op = replace(order, type=op_type, body=body)
        reply = await self.guest.order(op)
        self.links.append(ChainLink(op.op_id, sha256(op.encode()).digest(), reply.status, reply.total_minor))
        assert claim_for(self.links, 0, 0).chain == reply.chain
        return reply

    async def seal(self, asked: Reply) -> Reply:
        """Seal the bill that was asked for."""
        signer = load_signer(KEYS / f"{self.guest.device}.pem", 2048)
        claim = claim_for(self.links, asked.arg, asked.total_minor)
        body = BillClose(asked.arg, claim.seal(signer, SITE, self.guest.device))
        return await self.ask(OpType.BILL_CLOSE, body, total=asked.total_minor)


def test_a_whole_evening_ends_in_a_bill_that_anybody_can_check(
    server: BenchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        table = Table(await online(server))
        two = (Line(ESPRESSO, 2),)
        ordered = await table.ask(OpType.ORDER, None, *two, total=2 * ESPRESSO_MINOR)
        changed = await table.ask(
            OpType.CHANGE, Change(ordered.op_id), Line(ESPRESSO, 3), total=3 * ESPRESSO_MINOR
        )
        assert (changed.status, changed.order_number) == (Status.COMMITTED, ordered.order_number)
        second = await table.ask(OpType.ORDER, None, *two, total=2 * ESPRESSO_MINOR)
        assert (await table.ask(OpType.CANCEL, Cancel(second.op_id, 2))).status == Status.COMMITTED
        assert (await table.ask(OpType.CALL_WAITER, CallWaiter(1))).status == Status.COMMITTED
        asked = await table.ask(OpType.BILL_REQUEST, BillRequest(1, 2))
        assert (asked.arg, asked.total_minor) == (1, 3 * ESPRESSO_MINOR)
        assert (await table.seal(asked)).status == Status.COMMITTED
        await soon(
            lambda: (
                [notice.kind for notice in table.notices]
                == [NoticeKind.SEATING_OPENED, NoticeKind.ORDER_STATE, NoticeKind.CLOSED]
            ),
            "the table is told what happened to its seating",
        )
        table.links = []
        again = await table.ask(OpType.BILL_REQUEST, BillRequest(1, 2))
        assert (again.status, again.arg) == (Status.REJECTED, RejectCode.NO_OPEN_BILL)

    run(scenario())
    assert main(["evidence", "1", "--state", str(server.state)]) == 0
    document = tmp_path / "bill.json"
    document.write_text(capsys.readouterr().out)
    assert len(json.loads(document.read_text())["answers"]) == 6
    assert main(["check-evidence", str(document), "--key", str(KEYS / "t-0001.spki.der")]) == 0
    assert "780 minor units" in capsys.readouterr().out


def test_a_new_session_is_told_who_sits_at_its_table(server: BenchServer) -> None:
    async def scenario() -> None:
        first = Table(await online(server))
        await first.ask(OpType.ORDER, None, Line(ESPRESSO, 1), total=ESPRESSO_MINOR)
        later = Table(first.guest)
        await first.guest.hello()
        await soon(lambda: bool(later.notices), "the seating is announced")
        (notice,) = later.notices
        assert (notice.kind, notice.table, notice.total_minor) == (1, "1", ESPRESSO_MINOR)

    run(scenario())


def test_an_old_database_is_upgraded_at_the_start_and_keeps_its_orders(
    template: Path, tmp_path: Path
) -> None:
    from sqlalchemy import create_engine

    from server.storage import migrations

    with a_server(template, tmp_path) as running:

        async def scenario() -> None:
            guest = await online(running)
            await guest.order(guest.make_op((Line(ESPRESSO, 2),), 2 * ESPRESSO_MINOR))

        run(scenario())
        state = running.state
    engine = create_engine(f"sqlite:///{state / 'tableside.db'}")
    with engine.begin() as connection:
        migrations.downgrade(connection, "0001")
    engine.dispose()
    assert main(["orders", "--state", str(state)]) == 2, "only the server's start or migrate upgrades"
    with a_server(state, tmp_path / "again") as running:
        eventually(lambda: Ledger(running.state).order_count(SITE) == 1, "the order is still there")

        async def later() -> None:
            guest = await online(running)
            reply = await guest.order(guest.make_op((Line(ESPRESSO, 1),), ESPRESSO_MINOR))
            assert (reply.status, reply.order_number) == (Status.COMMITTED, 2)

        run(later())
