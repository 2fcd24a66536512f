"""Kitchen, closed tables, changed bookings, menus and tokens over HTTP, with a real server and terminals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from http_kit import Api, new_key, open_api, problem
from server_bench import ROOT_SPKI, SITE, a_server, bring_online, eventually, online, prepare_state, run

from bench.benchmarks.load_client import SoftTerminal
from bench.server import BenchServer
from server.wire.ops import Line, Reply, Status

WATER_ITEM, ESPRESSO_ITEM = 2, 1
COFFEE = (Line(1, 2), Line(1, 1))
COFFEE_MINOR = 780
HOUR_S = 3600
MENU = Path(__file__).resolve().parents[2] / "fixtures" / "menu"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    template = prepare_state(tmp_path_factory.mktemp("template"))
    with a_server(template, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: BenchServer) -> Iterator[Api]:
    with closing(open_api(server)) as opened:
        assert opened.post("/v1/tables", {"table": "terrace", "seats": 4}).status_code == 201
        yield opened


def order_from(server: BenchServer, number: int) -> Reply:
    """Have a terminal order three coffees in two lines."""
    replies: list[Reply] = []

    async def scenario() -> None:
        device = await online(server, number)
        replies.append(await device.order(device.make_op(COFFEE, COFFEE_MINOR)))

    run(scenario())
    return replies[0]


def tickets(api: Api, order: int, **params: Any) -> list[dict[str, Any]]:
    """Open tickets of an order as the kitchen sees them."""
    found = api.get("/v1/tickets", role="kitchen", params=params).json()
    assert "_minor" not in json.dumps(found)
    return [row for row in found["tickets"] if row["order"] == order]


def test_a_ticket_goes_from_the_guests_tap_to_the_table(server: BenchServer, api: Api) -> None:
    assert api.call("PUT", "/v1/items/1/station", json={"station": "bar"}, role="kitchen").status_code == 200
    assert {"item": 1, "station": "bar"} in api.get("/v1/stations", role="kitchen").json()
    number = order_from(server, 1).order_number
    (ticket,) = tickets(api, number, station="bar")
    assert (ticket["order"], ticket["table"], ticket["state"], ticket["held"]) == (number, "1", "new", False)
    assert tickets(api, number, station="grill") == []

    path = f"/v1/orders/{number}"
    second = ticket["lines"][1]["line"]
    assert api.post(f"{path}/lines/{second}/course", {"course": 2}, role="waiter").status_code == 200
    assert [line["held"] for line in tickets(api, number)[0]["lines"]] == [False, True]
    problem(
        api.post(f"/v1/seatings/{ticket['seating']}/courses/3/fire", {}, role="waiter"),
        409,
        "nothing_to_fire",
    )
    fired = api.post(f"/v1/seatings/{ticket['seating']}/courses/2/fire", {}, role="waiter").json()
    assert fired["orders"] == [number]
    assert [line["held"] for line in tickets(api, number)[0]["lines"]] == [False, False]

    for state in ("preparing", "ready", "served"):
        done = api.post(f"{path}/state", {"station": "bar", "state": state}, role="kitchen")
        assert done.json()["order_state"] == state, done.text
    assert tickets(api, number, station="bar") == []
    problem(api.post(f"{path}/state", {"station": "bar", "state": "new"}, role="kitchen"), 409, "line_state")
    steps = api.get(f"{path}/steps", role="waiter").json()
    assert [step["state"] for step in steps if step["line"] == second] == ["preparing", "ready", "served"]
    assert {step["author"] for step in steps} == {"kitchen:a kitchen"}
    problem(api.get("/v1/orders/999999/steps"), 404, "unknown_order")


def test_a_display_that_asks_again_is_told_when_nothing_happened(server: BenchServer, api: Api) -> None:
    first = api.get("/v1/tickets", role="kitchen")
    known = {"If-None-Match": first.headers["ETag"]}
    again = api.get("/v1/tickets", role="kitchen", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    number = order_from(server, 2).order_number
    changed = api.get("/v1/tickets", role="kitchen", headers=known)
    assert changed.status_code == 200
    assert number in [ticket["order"] for ticket in changed.json()["tickets"]]
    assert changed.json()["lsn"] == api.get("/v1/events", params={"limit": 500}).json()["next"]


def test_a_closed_table_says_so_to_its_guests_and_to_staff(server: BenchServer, api: Api) -> None:
    closed = api.post("/v1/tables/3/close", {"reason": "rain"}, role="waiter")
    assert closed.json()["open"] is False, closed.text
    shown = {row["table"]: row["open"] for row in api.get("/v1/tables", role="kitchen").json()}
    assert (shown["3"], shown["4"]) == (False, True)
    problem(api.post("/v1/tables/3/close", {}, role="waiter"), 409, "table_closed")
    problem(api.post("/v1/seatings", {"table": "3"}, role="waiter"), 409, "table_closed")
    assert order_from(server, 3).status == Status.TABLE_CLOSED
    assert api.post("/v1/tables/3/open", {}, role="waiter").json()["open"] is True
    assert order_from(server, 3).status == Status.COMMITTED
    problem(api.post("/v1/tables/3/close", {}, role="waiter"), 409, "table_taken")


def test_a_booking_is_changed_over_http(api: Api) -> None:
    body = {"name": "Ada", "covers": 2, "tables": ["terrace"], "start_at": 10 * HOUR_S, "end_at": 12 * HOUR_S}
    booking = api.post("/v1/bookings", body, role="waiter").json()["booking"]
    other = {**body, "name": "Bob", "start_at": 12 * HOUR_S, "end_at": 13 * HOUR_S}
    assert api.post("/v1/bookings", other, role="waiter").status_code == 201
    path = f"/v1/bookings/{booking}/change"
    problem(api.post(path, {"end_at": 12 * HOUR_S + 1}, role="waiter"), 409, "booking_overlap")
    key = new_key()
    changed = [api.post(path, {"covers": 5, "tables": ["4"]}, role="waiter", headers=key) for _ in range(2)]
    assert changed[0].text == changed[1].text
    assert (changed[0].json()["covers"], changed[0].json()["tables"]) == (5, ["4"])
    (row,) = [row for row in api.get("/v1/bookings").json() if row["booking"] == booking]
    assert (row["covers"], row["tables"], row["start_at"]) == (5, ["4"], 10 * HOUR_S)


def demo_menu() -> dict[str, Any]:
    """The demo menu as people write it."""
    found: dict[str, Any] = json.loads(next(MENU.glob("*.json")).read_text())
    return found


def test_a_manager_publishes_a_menu_that_terminals_trust(server: BenchServer, api: Api) -> None:
    menu = demo_menu()
    before = api.get("/v1/menu", role=None).json()["version"]
    problem(api.post("/v1/menus", {**menu, "version": before}), 409, "admin")
    menu["items"][0]["price_minor"] += 1
    key = new_key()
    made = [api.post("/v1/menus", menu, params={"renumber": True}, headers=key) for _ in range(2)]
    assert made[0].status_code == 201, made[0].text
    assert made[0].json()["version"] == made[1].json()["version"] == before + 1, "published once"
    eventually(lambda: api.get("/v1/menu", role=None).json()["version"] == before + 1, "the menu counts")
    assert order_from(server, 4).status == Status.REPRICE, "the old total no longer fits"
    versions = api.get("/v1/menus").json()
    assert [(row["version"], row["current"]) for row in versions][:2] == [(before + 1, True), (before, False)]
    menu["items"][0]["groups"] = [999]
    problem(api.post("/v1/menus", menu, params={"renumber": True}), 422, "bad_menu")
    assert api.get("/v1/menu", role=None).json()["version"] == before + 1
    assert api.post("/v1/menus", demo_menu(), params={"renumber": True}).status_code == 201, (
        "prices as before"
    )
    eventually(lambda: api.get("/v1/menu", role=None).json()["version"] == before + 2, "the menu counts")


def test_a_manager_hands_out_and_takes_back_tokens(server: BenchServer, api: Api) -> None:
    key, wish = new_key(), {"role": "kitchen", "name": "grill display", "days": 30}
    made = api.post("/v1/tokens", wish, headers=key).json()
    again = api.post("/v1/tokens", wish, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == {**made, "token": None}, "the secret is not kept for a repeated call"
    bearer = {"Authorization": f"Bearer {made['token']}"}

    def opens() -> bool:
        return api.client.get("/v1/tickets", headers=bearer).status_code == 200

    eventually(opens, "the token counts")
    for path in server.state.glob("tableside.db*"):
        assert made["token"].encode() not in path.read_bytes()
    (row,) = [row for row in api.get("/v1/tokens").json() if row["token_id"] == made["token_id"]]
    assert (row["role"], row["name"], row["revoked_at"]) == ("kitchen", "grill display", None)
    assert api.post(f"/v1/tokens/{made['token_id']}/revoke", {}).status_code == 200
    eventually(lambda: not opens(), "the token no longer counts")
    problem(api.post(f"/v1/tokens/{made['token_id']}/revoke", {}), 409, "admin")
    problem(api.post("/v1/tokens", {"role": "device", "name": "x", "device": "t-9999"}), 409, "admin")
    problem(api.post("/v1/tokens", {"role": "device", "name": "x"}), 422, "invalid")


def test_a_terminal_enrolled_over_http_orders_until_it_is_suspended(
    server: BenchServer, api: Api, tmp_path: Path
) -> None:
    key = generate_private_key(65537, 2048)
    pem = tmp_path / "t-0099.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = {"device": "t-0099", "table": "terrace", "spki": spki.hex(), "password": "eight or more"}
    idempotency = new_key()
    made = [api.post("/v1/devices", body, headers=idempotency) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201], made[1].text
    problem(api.post("/v1/devices", body), 409, "admin")
    eventually(lambda: "t-0099" in [row["device"] for row in api.get("/v1/devices").json()], "it is listed")

    async def scenario() -> None:
        device = SoftTerminal.from_pem(SITE, "t-0099", "terrace", "eight or more", pem, ROOT_SPKI)
        await bring_online(server, device)
        reply = await device.order(device.make_op(COFFEE, COFFEE_MINOR))
        assert reply.status in (Status.COMMITTED, Status.REPRICE)
        device.vanish()

    run(scenario())
