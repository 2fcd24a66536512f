"""Change, cancel, call, bill and pay: what people type, what is sent for it, and what they read."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from demo import ROOT, demo_store
from terminal.console import Console
from terminal.requests import Requests
from terminal.tally import Claim, Tally
from terminal.ui import Ui, UiError
from terminal.wire import rsa

from server.wire.cbor import decode
from server.wire.ops import Op, OpType, parse_op
from server.wire.requests import BillClaim, BillClose, BillRequest, CallWaiter, Cancel, Change
from server.wire.rsa import VerifyKey

SITE, DEVICE = "demo", "t-0001"
COMMITTED, REJECTED = 0, 5
OPENED, AWAY, HERE, CLOSED, ORDER_STATE = 1, 2, 3, 4, 5


def device_key() -> Any:
    """The fixture terminal's key as the firmware holds it."""
    key = load_pem_private_key((ROOT / "fixtures" / "keys" / f"{DEVICE}.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    numbers = key.private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    return rsa.PrivateKey.from_parts(n, e, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)


class Table:
    """The application as far as a guest's requests touch it: real screen, menu, tally; ops end in a list."""

    def __init__(self, menu: Any) -> None:
        self.sent: list[Op] = []
        self.lines: list[str] = []
        self.menu = menu
        self.ui = Ui(self.menu, "4")
        self.ui.on_link(True)
        self.tally = Tally({})
        self.identity = SimpleNamespace(site=SITE, device=DEVICE, private=device_key())
        self.board = SimpleNamespace(random=lambda size: bytes(range(1, size + 1)))
        self.outbox = self
        self._requests = Requests(self)
        self.console = Console(self, self.board, self.lines.append)

    def requests(self) -> Requests:
        """Like the application's."""
        return self._requests

    def next_op_id(self, _random: object) -> bytes:
        """Ids count up."""
        return (len(self.sent) + 1).to_bytes(12, "big")

    def append(self, op_id: bytes, op: bytes) -> None:
        """Journal an op: here, read it as the server will."""
        parsed = parse_op(decode(bytes(op), 1024))
        assert parsed.op_id == op_id
        assert parsed.reject is None
        self.sent.append(parsed)

    def send(self, op_id: bytes, op: bytes) -> None:
        """On its way."""

    def submit(self, lines: list[Any]) -> tuple[bytes, int]:
        """Order."""
        op_id = bytes(11) + b"\x99"
        self.ui.on_queued(op_id.hex(), lines, self.menu.total(lines), "4")
        return op_id, self.menu.total(lines)

    def type(self, line: str) -> str:
        """Type a line; what is written for it."""
        before = len(self.lines)
        asyncio.run(self.console.handle(line))
        return "\n".join(self.lines[before:])

    def answer(self, status: int, arg: int = 0, number: int = 0, total: int = 0) -> str:
        """Have the newest op answered; what the screen says."""
        text: str = self.ui.on_final(self.sent[-1].op_id.hex(), status, arg, number, total)
        return text


@pytest.fixture(scope="module")
def menu(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return demo_store(tmp_path_factory.mktemp("fs"))


@pytest.fixture
def table(menu: Any) -> Table:
    """A table with order 1001, two espressos, confirmed."""
    made = Table(menu)
    made.type("order 2x espresso")
    made.ui.on_final((bytes(11) + b"\x99").hex(), COMMITTED, 0, 1001, 520)
    return made


def test_a_change_names_the_order_the_new_lines_and_the_new_total(table: Table) -> None:
    said = table.type('change 1001 1x "flat white" with oat milk').splitlines()
    assert said == ["  1 x flat white with oat milk  4.70 EUR", "asked for: 4.70 EUR together"]
    op = table.sent[-1]
    assert (op.type, op.total_minor, op.body) == (OpType.CHANGE, 470, Change(bytes(11) + b"\x99"))
    assert [(line.item, line.quantity, line.modifiers) for line in op.lines] == [(3, 1, (101,))]
    assert table.ui.basket == [], "the basket is as it was"
    assert table.answer(COMMITTED, number=1001, total=470) == "order 1001 was changed, it is 4.70 EUR now"
    assert table.ui.orders[0]["total"] == 470


def test_a_change_the_kitchen_refuses_leaves_the_order_as_it_was(table: Table) -> None:
    table.type("change 1001 1x espresso")
    assert "kitchen has begun" in table.answer(REJECTED, 12)
    assert table.ui.orders[0]["total"] == 520
    assert table.ui.notice == "not accepted: the kitchen has begun with it already"


@pytest.mark.parametrize(
    ("words", "reason"), [("", 4), (" mind", 1), (" mistake", 2), (" slow", 3), (" other", 4)]
)
def test_an_order_is_cancelled_by_its_number_or_its_place_in_the_list(
    table: Table, words: str, reason: int
) -> None:
    for number in ("1001", "1"):
        assert table.type(f"cancel {number}{words}") == "asked to cancel it"
        assert table.sent[-1].body == Cancel(bytes(11) + b"\x99", reason)
    assert table.answer(COMMITTED, number=1001) == "order 1001 was cancelled"
    assert table.ui.orders[0]["kitchen"] == 4


@pytest.mark.parametrize(("words", "reason"), [("", 0), (" order", 1), (" pay", 2), (" help", 3)])
def test_somebody_is_called_with_a_reason_or_without(table: Table, words: str, reason: int) -> None:
    assert table.type("waiter" + words) == "calling somebody"
    assert table.sent[-1].body == CallWaiter(reason)
    assert table.answer(COMMITTED) == "somebody is on the way"


@pytest.mark.parametrize(
    ("words", "shares", "tender"),
    [("", 1, 0), (" 3", 3, 0), (" cash", 1, 1), (" 3 card", 3, 2), (" card 20", 20, 2)],
)
def test_the_bill_is_asked_for_in_parts_and_by_tender(
    table: Table, words: str, shares: int, tender: int
) -> None:
    assert table.type("bill" + words) == "asking for the bill"
    assert table.sent[-1].body == BillRequest(shares, tender)
    assert table.answer(COMMITTED, 7, total=520) == "the bill is 5.20 EUR, somebody is on the way"
    assert table.ui.screen()["bill"] == {"bill": 7, "total": 520}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cancel", "say which order, by the number that orders shows"),
        ("cancel 77", "there is no order 77 here"),
        ("cancel 1001 because", "say mind, mistake, other, slow"),
        ("change 1001 1x currywurst", 'nothing on the menu is called "currywurst"'),
        ("waiter now", "say help, order, pay"),
        ("bill 21", "say bill, bill 3 for three payers, bill cash or bill card"),
        ("bill twice", "say bill, bill 3 for three payers, bill cash or bill card"),
        ("pay", "there is no bill yet: ask for it with bill"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_sent(table: Table, line: str, says: str) -> None:
    assert says in table.type(line)
    assert table.sent == []


def test_paying_seals_exactly_the_bill_that_was_asked_for(table: Table) -> None:
    table.tally.claim = Claim(7, 520, bytes(12), b"\x01" * 12, 3, b"\x22" * 32)

    async def pay() -> None:
        await table.console.handle("pay")
        (task,) = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await task

    asyncio.run(pay())
    assert table.lines[-1] == "sealing the bill of 5.20 EUR"
    op = table.sent[-1]
    assert isinstance(op.body, BillClose)
    assert (op.total_minor, op.body.bill) == (520, 7)
    spki = (ROOT / "fixtures" / "keys" / f"{DEVICE}.spki.der").read_bytes()
    claim = BillClaim.open(op.body.seal, VerifyKey(spki, 2048), SITE, DEVICE)
    assert (claim.bill, claim.count, claim.chain, claim.total_minor) == (7, 3, b"\x22" * 32, 520)
    assert table.answer(COMMITTED, total=520) == "5.20 EUR sealed and closed, thank you"
    assert table.ui.screen()["bill"] is None


def test_a_machine_gets_one_answer_to_each_request(table: Table) -> None:
    order = table.ui.orders[0]["op"]
    asked = [
        {"do": "change", "op": order, "lines": [["espresso", 1]]},
        {"do": "cancel", "op": order, "reason": 2},
        {"do": "waiter", "reason": 3},
        {"do": "bill", "shares": 2, "tender": 1},
    ]
    for number, request in enumerate(asked):
        said = table.type(f"!{number} {json.dumps(request)}")
        mark, _, body = said.partition(" ")
        answer = json.loads(body)
        assert (mark, answer["ok"]) == (f"={number}", True), answer
        assert answer["op"] == table.sent[-1].op_id.hex()
    refused = json.loads(table.type('!9 {"do": "cancel", "op": "abcd"}').partition(" ")[2])
    assert (refused["ok"], refused["error"]) == (False, "NO_SUCH_ORDER")


def test_a_terminal_says_where_its_guests_went_and_that_others_came(table: Table) -> None:
    ui = table.ui
    ui.on_notice(OPENED, "4", 11, 520, 0)
    ui.bill = {"bill": 7, "total": 520}
    assert ui.screen()["seating"] == {"id": 11, "total": 520}
    ui.on_notice(AWAY, "4", 11, 0, 0)
    assert (ui.screen()["seating"], ui.screen()["bill"]) == (None, None)
    assert ui.screen()["notice"] == "the guests have moved to another table"
    ui.on_notice(HERE, "4", 12, 900, 0)
    assert ui.screen()["seating"] == {"id": 12, "total": 900}
    assert ui.notice == "the guests now sit at table 4"
    ui.on_notice(ORDER_STATE, "4", 12, 640, 1001 << 3 | 2)
    assert ui.screen()["seating"]["total"] == 640
    assert ui.orders[0]["text"] == "order 1001 is ready"
    ui.on_notice(CLOSED, "4", 12, 640, 0)
    assert ui.screen()["seating"] is None


def test_what_happened_while_the_terminal_was_away_is_not_shown_as_if_it_had_not(table: Table) -> None:
    ui = table.ui
    ui.on_notice(OPENED, "4", 11, 520, 0)
    ui.bill = {"bill": 7, "total": 520}
    ui.on_session("4")
    assert ui.screen()["seating"] is None, "nobody is announced: nobody sits here"
    ui.on_notice(OPENED, "4", 11, 520, 0)
    assert ui.screen()["bill"] == {"bill": 7, "total": 520}, "the same party still has its bill"
    ui.on_session("4")
    ui.on_notice(OPENED, "4", 12, 0, 0)
    assert ui.screen()["bill"] is None, "another party's bill is nobody's business"


def test_an_order_by_no_number_is_asked_after(table: Table) -> None:
    with pytest.raises(UiError) as caught:
        table.requests().find_order("espresso")
    assert caught.value.code == "WHICH_ORDER"
