"""The order kit's house with the staff's service and terminals that keep their own chain."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

sys.path.insert(0, str(Path(__file__).parents[1] / "server_order"))

from database_kit import transaction
from order_kit import DEVICE, NOW_S, OTHER_DEVICE, OTHER_TABLE, SITE, TABLE, House, open_house

from server.domain.errors import HouseCode, HouseError
from server.domain.seals import ChainLink, claim_for
from server.ordering.apply import Answered
from server.service.change import Change
from server.service.service import Service
from server.wire.ops import Line, Op, OpType, Reply, Status
from server.wire.requests import BillClose, BillRequest, Body, CallWaiter, Cancel
from server.wire.requests import Change as ChangeBody
from server.wire.rsa import RsaSigner

TABLES = {DEVICE: TABLE, OTHER_DEVICE: OTHER_TABLE}


class FixedClock:
    """Stands still at the kit's now."""

    def unix_time(self) -> int:
        """Unix seconds."""
        return NOW_S


@cache
def device_key(device: str) -> RSAPrivateKey:
    """A key per device, made once per test run."""
    del device
    return generate_private_key(65537, 2048)


@dataclass
class Guest:
    """A terminal: makes ops, and keeps the chain of its answers as its firmware does."""

    staffed: StaffedHouse
    device: str
    table: str
    number: int = 0
    links: list[ChainLink] = field(default_factory=list)
    last: Answered | None = None

    def send(
        self,
        op_type: int,
        *lines: Line,
        total: int = 0,
        body: Body | None = None,
        table: str | None = None,
        op_id: bytes | None = None,
    ) -> Reply:
        """Send one op and remember its answer in the chain, which begins anew at another seating."""
        self.number += 1
        op = Op(
            op_type, op_id or self.device.encode()[-4:] + self.number.to_bytes(8, "big"),
            table or self.table, lines, self.staffed.menu_version, total, None, body,
        )  # fmt: skip
        data = op.encode()
        self.last = self.staffed.house.apply(op, device=self.device, body=data)
        reply = self.last.reply
        link = ChainLink(op.op_id, sha256(data).digest(), reply.status, reply.total_minor)
        if claim_for([*self.links, link], 0, 0).chain != reply.chain:
            self.links = []
        self.links.append(link)
        assert claim_for(self.links, 0, 0).chain == reply.chain
        return reply

    def order(self, *lines: Line, total: int) -> Reply:
        """Order."""
        return self.send(OpType.ORDER, *lines, total=total)

    def change(self, target: bytes, *lines: Line, total: int) -> Reply:
        """Change an order of one's own."""
        return self.send(OpType.CHANGE, *lines, total=total, body=ChangeBody(target))

    def cancel(self, target: bytes, reason: int = 1) -> Reply:
        """Cancel an order of one's own."""
        return self.send(OpType.CANCEL, body=Cancel(target, reason))

    def call(self, reason: int = 0) -> Reply:
        """Call the waiter."""
        return self.send(OpType.CALL_WAITER, body=CallWaiter(reason))

    def ask_bill(self, shares: int = 1) -> Reply:
        """Ask for the bill."""
        return self.send(OpType.BILL_REQUEST, body=BillRequest(shares, 0))

    def seal(self, asked: Reply, answers: int | None = None, **wrong: Any) -> Reply:
        """Close the bill that was asked for, with a seal over this terminal's (first) answers."""
        claim = claim_for(self.links[:answers], asked.arg, asked.total_minor)
        fields = {name: getattr(claim, name) for name in claim.__dataclass_fields__}
        claim = type(claim)(**{**fields, **wrong})
        seal = claim.seal(RsaSigner(device_key(self.device)), SITE, self.device)
        return self.send(OpType.BILL_CLOSE, total=claim.total_minor, body=BillClose(asked.arg, seal))


@dataclass
class StaffedHouse:
    """A house with its service."""

    house: House
    service: Service
    menu_version: int = 1
    notices: list[tuple[str, int]] = field(default_factory=list)

    def run(self, job: Change) -> dict[str, Any]:
        """Run one change in a transaction of its own, as the writer would."""
        with transaction(self.house.connection) as connection:
            self.house.catalogue.reload(connection)
            result = job(connection)
        self.notices = [(one.table, one.notice.kind) for one in job.notices]
        return result

    def guest(self, device: str = DEVICE) -> Guest:
        """A terminal at its table."""
        return Guest(self, device, TABLES[device])

    def close(self) -> None:
        """Close everything."""
        self.house.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the database holds."""
        return self.house.connection.execute(sql).fetchall()


def staffed_house(folder: Path, url: str | None = None) -> StaffedHouse:
    """A house with real device keys and three tables, fresh unless the database at ``url`` holds it."""
    house = open_house(folder, url)
    staffed = StaffedHouse(house, Service(house.catalogue, FixedClock()))
    if house.one("SELECT COUNT(*) FROM dining_table WHERE table_id = '6'"):
        return staffed
    for device in TABLES:
        spki = RsaSigner(device_key(device)).spki
        house.connection.execute("UPDATE device SET spki = ? WHERE device = ?", (spki, device))
    staffed.run(staffed.service.add_table("boss", "6", 4))
    return staffed


@contextmanager
def refused(code: HouseCode) -> Iterator[None]:
    """The block must be refused with a code."""
    with pytest.raises(HouseError) as caught:
        yield
    assert caught.value.code is code
    assert len(str(caught.value)) > 10


Maker = Callable[[], StaffedHouse]
__all__ = [
    "DEVICE",
    "NOW_S",
    "OTHER_DEVICE",
    "OTHER_TABLE",
    "SITE",
    "TABLE",
    "Guest",
    "Line",
    "StaffedHouse",
    "Status",
    "refused",
    "staffed_house",
]
