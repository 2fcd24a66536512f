"""An evening over HTTP: book, seat, order, cook, void, move, split, pay, refund - and who may do what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_kit import ROLES, Api, http_base, issue_token, open_api, problem
from server_bench import SITE, a_server, eventually, online, prepare_state, run
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from bench.server import BenchServer
from server.storage.ledger import Ledger
from server.wire.ops import Line, Status

COFFEE = (Line(1, 2), Line(1, 1))
COFFEE_MINOR = 780
HOUR_S = 3600

M, W, K, D = ROLES
WHO_MAY: dict[tuple[str, str], set[str]] = {
    ("GET", "/v1/tables"): {M, W, K},
    ("POST", "/v1/tables"): {M},
    ("POST", "/v1/tables/{table}/close"): {M, W},
    ("POST", "/v1/tables/{table}/open"): {M, W},
    ("GET", "/v1/tickets"): {M, W, K},
    ("GET", "/v1/stations"): {M, W, K},
    ("PUT", "/v1/items/{item}/station"): {M, K},
    ("POST", "/v1/seatings/{seating}/courses/{course}/fire"): {M, W},
    ("POST", "/v1/orders/{order}/state"): {M, W, K},
    ("GET", "/v1/orders/{order}/steps"): {M, W, K},
    ("GET", "/v1/menus"): {M},
    ("POST", "/v1/menus"): {M},
    ("GET", "/v1/tokens"): {M},
    ("POST", "/v1/tokens"): {M},
    ("POST", "/v1/tokens/{token_id}/revoke"): {M},
    ("GET", "/v1/seatings"): {M, W},
    ("POST", "/v1/seatings"): {M, W},
    ("POST", "/v1/seatings/{seating}/transfer"): {M, W},
    ("POST", "/v1/seatings/{seating}/merge"): {M, W},
    ("POST", "/v1/seatings/{seating}/close"): {M, W},
    ("POST", "/v1/seatings/{seating}/bill"): {M, W},
    ("GET", "/v1/bookings"): {M, W},
    ("POST", "/v1/bookings"): {M, W},
    ("POST", "/v1/bookings/{booking}/change"): {M, W},
    ("POST", "/v1/bookings/{booking}/seat"): {M, W},
    ("POST", "/v1/bookings/{booking}/cancel"): {M, W},
    ("POST", "/v1/bookings/{booking}/no-show"): {M, W},
    ("GET", "/v1/orders"): {M, W, K},
    ("GET", "/v1/orders/{order}"): {M, W, K},
    ("POST", "/v1/orders/{order}/lines/{line}/state"): {M, W, K},
    ("POST", "/v1/orders/{order}/lines/{line}/course"): {M, W},
    ("POST", "/v1/orders/{order}/lines/{line}/void"): {M},
    ("GET", "/v1/stock"): {M, W, K},
    ("PUT", "/v1/items/{item}/stock"): {M, K},
    ("PUT", "/v1/items/{item}/availability"): {M, K},
    ("GET", "/v1/bills/{bill}"): {M, W},
    ("GET", "/v1/bills/{bill}/evidence"): {M},
    ("POST", "/v1/bills/{bill}/split"): {M, W},
    ("POST", "/v1/bills/{bill}/payments"): {M, W},
    ("POST", "/v1/payments/{payment}/refunds"): {M},
    ("GET", "/v1/events"): {M},
    ("POST", "/v1/ops"): {D},
    ("GET", "/v1/devices"): {M, W},
    ("POST", "/v1/devices"): {M},
    ("POST", "/v1/devices/{device}/state"): {M},
    ("GET", "/v1/releases"): {M},
    ("POST", "/v1/releases"): {M},
    ("POST", "/v1/releases/upload"): {M},
    ("POST", "/v1/releases/terminals/{device}/command"): {M},
    ("POST", "/v1/releases/{reference}/rollout"): {M},
    ("POST", "/v1/releases/{reference}/state"): {M},
    ("GET", "/v1/releases/status"): {M},
    ("GET", "/v1/releases/history/{device}"): {M},
    ("GET", "/v1/releases/{digest}/offer"): {M, D},
    ("GET", "/v1/releases/{digest}"): {M, D},
}
PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/menu"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    template = prepare_state(tmp_path_factory.mktemp("template"))
    with a_server(template, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: BenchServer) -> Iterator[Api]:
    with closing(open_api(server)) as opened:
        for table in ("1", "2", "3", "4", "terrace"):
            assert opened.post("/v1/tables", {"table": table, "seats": 4}).status_code == 201
        yield opened


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/v1/openapi.json", role=None).json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """{(METHOD, path): operation} of the whole document."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_names_the_roles_of_every_route(document: dict[str, Any]) -> None:
    stated = {key: set(operation.get("x-roles", ())) for key, operation in operations(document).items()}
    assert {key: roles for key, roles in stated.items() if roles} == WHO_MAY
    assert {key for key, roles in stated.items() if not roles} == PUBLIC


@pytest.mark.parametrize("key", sorted(WHO_MAY), ids=lambda key: f"{key[0]} {key[1]}")
def test_only_these_roles_get_in(api: Api, key: tuple[str, str]) -> None:
    method, template = key
    path = template.format(
        seating=999_999, booking=999_999, order=999_999, line=0, item=1, bill=999_999, payment=999_999,
        device="t-0404", table="t-404", course=2, token_id="ffff", digest="00" * 8, reference="00" * 8,
    )  # fmt: skip
    sent: dict[str, Any] = {} if method == "GET" else {"json": {}}
    assert api.call(method, path, role=None, **sent).status_code == 401
    for role in ROLES:
        answer = api.call(method, path, role=role, **sent)
        if role in WHO_MAY[key]:
            assert answer.status_code in (200, 404, 409, 415, 422), (role, answer.text)
        else:
            problem(answer, 403, "forbidden")


def test_every_change_takes_an_idempotency_key_but_the_sealed_op(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        headers = {entry["name"] for entry in operation.get("parameters", ()) if entry["in"] == "header"}
        wanted = method != "GET" and path != "/v1/ops"
        assert ("Idempotency-Key" in headers) == wanted, (method, path)


def order_from(server: BenchServer, number: int) -> int:
    """Have a terminal order; returns the order number."""
    numbers: list[int] = []

    async def scenario() -> None:
        device = await online(server, number)
        reply = await device.order(device.make_op(COFFEE, COFFEE_MINOR))
        assert reply.status == Status.COMMITTED
        numbers.append(reply.order_number)

    run(scenario())
    return numbers[0]


def test_an_evening(server: BenchServer, api: Api) -> None:
    booked = api.post(
        "/v1/bookings",
        {"name": "Ada", "covers": 2, "tables": ["1"], "start_at": 10 * HOUR_S, "end_at": 12 * HOUR_S},
        role="waiter",
    ).json()
    overlapping = {
        "name": "Bob",
        "covers": 2,
        "tables": ["1"],
        "start_at": 11 * HOUR_S,
        "end_at": 13 * HOUR_S,
    }
    problem(api.post("/v1/bookings", overlapping, role="waiter"), 409, "booking_overlap")
    seated = api.post(f"/v1/bookings/{booked['booking']}/seat", {}, role="waiter").json()
    problem(api.post("/v1/seatings", {"table": "1"}, role="waiter"), 409, "table_taken")
    seating = seated["seating"]

    number = order_from(server, 1)
    order = api.get(f"/v1/orders/{number}", role="kitchen").json()
    assert [line["state"] for line in order["lines"]] == ["new", "new"]
    first, second = (line["line"] for line in order["lines"])
    path = f"/v1/orders/{number}/lines"
    assert api.post(f"{path}/{first}/state", {"state": "ready"}, role="kitchen").json()["state"] == "ready"
    problem(api.post(f"{path}/{first}/state", {"state": "new"}, role="kitchen"), 409, "line_state")
    voided = api.post(f"{path}/{second}/void", {"reason": "spilled"}).json()
    assert voided["amount_minor"] == 260

    moved = api.post(f"/v1/seatings/{seating}/transfer", {"table": "terrace"}, role="waiter").json()
    assert (moved["from"], moved["to"]) == ("1", "terrace")

    bill = api.post(f"/v1/seatings/{seating}/bill", {}, role="waiter").json()
    assert (bill["total_minor"], bill["due_minor"]) == (520, 520)
    parts = api.post(f"/v1/bills/{bill['bill']}/split", {"shares": [1, 1, 1]}, role="waiter").json()["parts"]
    assert sum(part["due_minor"] for part in parts) == 520
    paying = f"/v1/bills/{bill['bill']}/payments"
    problem(api.post(paying, {"amount_minor": 521, "tender": "cash"}, role="waiter"), 409, "overpaid")
    problem(api.post(paying, {"amount_minor": 20, "tender": "card"}, role="waiter"), 422, "bad_value")
    paid = api.post(paying, {"amount_minor": 520, "tender": "cash"}, role="waiter").json()
    assert paid["due_minor"] == 0
    assert api.post(f"/v1/seatings/{seating}/close", {}, role="waiter").status_code == 200
    refunds = f"/v1/payments/{paid['payment']}/refunds"
    refunded = api.post(refunds, {"amount_minor": 20, "reason": "cold"})
    assert refunded.status_code == 201
    problem(api.post(refunds, {"amount_minor": 501, "reason": "cold"}), 409, "over_refunded")
    shown = api.get(f"/v1/bills/{bill['bill']}", role="waiter").json()
    assert shown["payments"][0]["refunded_minor"] == 20
    proof = api.get(f"/v1/bills/{bill['bill']}/evidence").json()
    assert (proof["bill"], proof["sealed"], proof["total_minor"]) == (bill["bill"], False, 520)

    events = api.get("/v1/events", params={"limit": 500}).json()["events"]
    lsns = [event["lsn"] for event in events]
    assert lsns == sorted(set(lsns))
    said = {event["kind"]: event for event in events}
    assert (said["line_voided"]["author"], said["line_voided"]["reason"]) == ("manager:a manager", "spilled")
    assert said["seating_moved"]["author"] == "waiter:a waiter"


@pytest.fixture(scope="module")
def bill(server: BenchServer, api: Api) -> int:
    """An open bill of the party at table 2."""
    order_from(server, 2)
    seating = next(row["seating"] for row in api.get("/v1/seatings").json() if row["table"] == "2")
    return int(api.post(f"/v1/seatings/{seating}/bill", {}).json()["bill"])


def test_a_repeated_payment_is_taken_once(api: Api, bill: int) -> None:
    before = api.get(f"/v1/bills/{bill}").json()["paid_minor"]
    key = {"Idempotency-Key": "card-terminal-4711"}
    body = {"amount_minor": 300, "tender": "card", "reference": "4711"}
    answers = [api.post(f"/v1/bills/{bill}/payments", body, headers=key) for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    assert api.get(f"/v1/bills/{bill}").json()["paid_minor"] == before + 300


def test_an_item_that_ran_out_is_refused_to_terminals(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server, 3)
        reply = await device.order(device.make_op((Line(2, 1),), 260))
        assert reply.status in (Status.SOLD_OUT, Status.REPRICE)

    assert api.call("PUT", "/v1/items/2/availability", json={"available": False}, role="kitchen").json()
    try:
        assert {"item": 2, "count": None, "available": False} in api.get("/v1/stock", role="waiter").json()
        run(scenario())
    finally:
        api.call("PUT", "/v1/items/2/availability", json={"available": True}, role="kitchen")
    problem(api.call("PUT", "/v1/items/60000/stock", json={"count": 1}), 404, "unknown_item")


def attach(server: BenchServer, api: Api, after: int | None, role: str = "kitchen") -> ClientConnection:
    """A feed client."""
    url = http_base(server).replace("http", "ws") + "/v1/feed"
    headers = {"Authorization": f"Bearer {api.tokens[role]}"}
    return connect(url if after is None else f"{url}?after={after}", additional_headers=headers)


def take(feed: ClientConnection, count: int) -> list[dict[str, Any]]:
    """The next messages of a feed."""
    return [json.loads(feed.recv(timeout=10)) for _ in range(count)]


def test_the_feed_shows_a_ticket_within_a_moment_and_resumes_without_a_gap(
    server: BenchServer, api: Api
) -> None:
    with attach(server, api, None) as feed:
        numbers = [order_from(server, 4), order_from(server, 4)]
        seen = take(feed, 2)
    assert [entry["kind"] for entry in seen] == ["ordered", "ordered"]
    assert [entry["body"]["order"] for entry in seen] == numbers
    assert [line["quantity"] for line in seen[0]["body"]["lines"]] == [2, 1]
    numbers.append(order_from(server, 4))
    with attach(server, api, seen[0]["lsn"]) as feed:
        again = take(feed, 2)
    assert [entry["body"]["order"] for entry in again] == numbers[1:]


def until_order(feed: ClientConnection, number: int) -> str:
    """Everything a feed says up to this order, as text."""
    said = take(feed, 1)
    while said[-1]["body"].get("order") != number:
        said += take(feed, 1)
    return json.dumps(said)


def test_the_kitchen_sees_no_money(server: BenchServer, api: Api, bill: int) -> None:
    paying = {"amount_minor": 1, "tender": "cash"}
    assert api.post(f"/v1/bills/{bill}/payments", paying).status_code == 201
    last = order_from(server, 3)
    with attach(server, api, 0, "manager") as feed:
        everything = until_order(feed, last)
    assert "_minor" in everything
    assert "paid" in everything
    with attach(server, api, 0) as feed:
        seen = until_order(feed, last)
    assert "_minor" not in seen
    assert "paid" not in seen


def test_a_manager_sees_every_committed_change_in_order(server: BenchServer, api: Api) -> None:
    order_from(server, 3)
    known = api.get("/v1/events", params={"limit": 500}).json()["events"]
    with attach(server, api, 0, "manager") as feed:
        seen = take(feed, len(known))
    assert [entry["lsn"] for entry in seen] == [entry["lsn"] for entry in known]
    orders = {order.lsn for order in Ledger(server.state).orders(SITE)}
    assert orders <= {entry["lsn"] for entry in seen}


def test_an_lsn_from_the_future_is_turned_away(server: BenchServer, api: Api) -> None:
    with attach(server, api, 10**12) as feed, pytest.raises(ConnectionClosed) as closed:
        feed.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4409


@pytest.mark.parametrize(("role", "after", "status"), [("device", None, 403), ("kitchen", "x", 422)])
def test_a_feed_that_may_not_open_is_refused_before_it_begins(
    server: BenchServer, api: Api, role: str, after: Any, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        attach(server, api, after, role)
    assert refused.value.response.status_code == status


def drain(feed: ClientConnection, api: Api) -> None:
    """Read for ever, and see to it that there is something to read."""
    while True:
        api.post("/v1/tables", {"table": "terrace", "seats": 4})
        feed.recv(timeout=10)


def test_a_revoked_token_ends_its_feed(server: BenchServer, api: Api) -> None:
    made = issue_token(server, "kitchen", name="leaver")
    eventually(
        lambda: api.client.get(
            "/v1/tables", headers={"Authorization": f"Bearer {made['token']}"}
        ).status_code == 200,
        "the token counts",
    )  # fmt: skip
    url = http_base(server).replace("http", "ws") + "/v1/feed"
    with connect(url, subprotocols=["tableside.feed", made["token"]]) as feed:  # type: ignore[list-item]
        assert feed.subprotocol == "tableside.feed"
        server.admin("tokens", "revoke", made["token_id"])
        with pytest.raises(ConnectionClosed) as closed:
            drain(feed, api)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


def test_a_stopping_server_closes_its_feeds(tmp_path: Path) -> None:
    template = prepare_state(tmp_path)
    (tmp_path / "run").mkdir()
    with a_server(template, tmp_path / "run") as running:
        token = issue_token(running, "kitchen")["token"]
        api = Api(httpx.Client(base_url=http_base(running)), {"kitchen": token})
        with closing(api):
            eventually(lambda: api.get("/v1/tables", role="kitchen").status_code == 200, "the token counts")
            feed = attach(running, api, 0)
    with closing(feed.socket), pytest.raises(ConnectionClosed) as closed:
        feed.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
