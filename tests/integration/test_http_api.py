"""The HTTP API of a real server process: public reads, tokens, limits, keys of calls, sealed ops."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from http_kit import Api, http_base, issue_token, kid_of, new_key, open_api, problem
from server_bench import SITE, a_server, eventually, online, prepare_state, refusals, run, soon

from bench.server import BenchServer
from server.storage.ledger import Ledger
from server.wire.frames import SERVER_SIGN, Certificate, Hint, HintStatus
from server.wire.menus import Menu
from server.wire.ops import Line, Reply, Status
from server.wire.rsa import VerifyKey

COSE = {"Content-Type": "application/cose"}
COFFEE = (Line(1, 2),)
COFFEE_MINOR = 520


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    with a_server(template, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: BenchServer) -> Iterator[Api]:
    with closing(open_api(server)) as opened:
        yield opened


def test_health_and_readiness_need_no_token(api: Api) -> None:
    assert api.get("/healthz", role=None).json() == {"status": "ok"}
    assert api.get("/readyz", role=None).json() == {"status": "ready"}


def test_the_keys_are_certified_by_the_root(api: Api) -> None:
    found = api.get("/v1/keys", role=None).json()
    root = VerifyKey(bytes.fromhex(found["root"]["spki"]), 3072)
    certificate = Certificate.open(bytes.fromhex(found["certificate"]), root, SITE, SERVER_SIGN)
    assert certificate.spki.hex() == found["server_sign"]["spki"]
    assert certificate.kid.hex() == found["server_sign"]["kid"]
    assert certificate.epoch == found["epoch"]


def test_a_menu_that_did_not_change_is_not_sent_again(api: Api) -> None:
    first = api.get("/v1/menu", role=None)
    assert first.json()["version"] == 1
    again = api.get("/v1/menu", role=None, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = api.get("/v1/menu", role=None, headers={"If-None-Match": '"something else"'})
    assert other.status_code == 200


def test_the_menu_comes_as_the_signed_frame_too(api: Api) -> None:
    keys = api.get("/v1/keys", role=None).json()
    signed = api.get("/v1/menu", role=None, headers={"Accept": "application/cose"})
    assert signed.headers["content-type"] == "application/cose"
    menu = Menu.open(signed.content, VerifyKey(bytes.fromhex(keys["server_sign"]["spki"]), 3072), SITE)
    plain = api.get("/v1/menu", role=None)
    assert [item.id for item in menu.items] == [item["id"] for item in plain.json()["items"]]
    assert signed.headers["etag"] != plain.headers["etag"]


def test_metrics_name_what_an_operator_watches(api: Api) -> None:
    text = api.get("/metrics", role=None).text
    for name in ("tableside_commits_total", "tableside_queue_jobs", "tableside_sessions",
                 "tableside_http_seconds_bucket", "tableside_menu_version 1.0"):  # fmt: skip
        assert name in text


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer x", "Basic dDp0", "Bearer ts_" + "A" * 43, "Bearer ts_" + "é" * 3],
)
def test_a_call_without_a_valid_token_is_turned_away(api: Api, header: str | None) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode())]
    answer = api.client.get("/v1/devices", headers=headers)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_token_opens_nothing(server: BenchServer, api: Api) -> None:
    made = issue_token(server, "manager", name="leaver")
    headers = {"Authorization": f"Bearer {made['token']}"}
    eventually(lambda: api.client.get("/v1/devices", headers=headers).status_code == 200, "it works")
    server.admin("tokens", "revoke", made["token_id"])
    eventually(lambda: api.client.get("/v1/devices", headers=headers).status_code == 401, "it is refused")
    listed = json.loads(server.admin("tokens", "list", "--json"))
    assert next(row for row in listed if row["token_id"] == made["token_id"])["revoked_at"]


def test_no_token_is_stored_in_the_clear(server: BenchServer, api: Api) -> None:
    stored = (server.state / "tableside.db").read_bytes() + (server.state / "tableside.db-wal").read_bytes()
    for token in api.tokens.values():
        assert token.encode() not in stored


def test_every_answer_names_its_limits(api: Api) -> None:
    answer = api.get("/v1/devices")
    assert answer.headers["ratelimit-policy"].endswith(";w=10")
    assert ";r=" in answer.headers["ratelimit"]
    assert answer.headers["x-request-id"]


def test_a_change_without_an_idempotency_key_is_refused(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.tokens['manager']}"}
    answer = api.client.post("/v1/devices/t-0004/state", headers=headers, json={"state": "suspended"})
    problem(answer, 400, "idempotency_key_required")


def test_a_repeated_change_has_one_effect_and_one_answer(server: BenchServer, api: Api) -> None:
    key = new_key()
    path = "/v1/devices/t-0004/state"
    first = api.post(path, {"state": "suspended"}, headers=key)
    assert first.json() == {"device": "t-0004", "state": "suspended", "before": "active"}
    assert "idempotency-replayed" not in first.headers
    api.post(path, {"state": "active"})
    again = api.post(path, {"state": "suspended"}, headers=key)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    state = next(row.state for row in Ledger(server.state).devices(SITE) if row.device == "t-0004")
    assert state == "active"


def test_a_key_cannot_be_used_for_another_call(api: Api) -> None:
    key = new_key()
    api.post("/v1/devices/t-0004/state", {"state": "active"}, headers=key)
    problem(api.post("/v1/devices/t-0004/state", {"state": "suspended"}, headers=key), 422, "key_reused")
    problem(api.post("/v1/devices/t-0003/state", {"state": "active"}, headers=key), 422, "key_reused")


def test_a_refused_call_stores_nothing_under_its_key(api: Api) -> None:
    key = new_key()
    body = {"device": "t-0001", "table": "9", "spki": "00" * 294, "password": "long enough"}
    assert api.post("/v1/devices", body, headers=key).status_code == 422
    assert api.post("/v1/devices/t-0004/state", {"state": "active"}, headers=key).status_code == 200


def test_keys_of_two_tokens_do_not_meet(server: BenchServer, api: Api) -> None:
    other = issue_token(server, "manager", name="second")["token"]
    key = new_key()
    path, body = "/v1/devices/t-0004/state", {"state": "active"}
    api.post(path, body, headers=key)
    headers = {**key, "Authorization": f"Bearer {other}"}
    eventually(lambda: api.client.post(path, headers=headers, json=body).status_code == 200, "it is known")


def test_bodies_of_the_wrong_shape_are_problems(api: Api) -> None:
    problem(api.post("/v1/devices/t-0004/state", {"state": "dancing"}), 422, "invalid")
    problem(api.post("/v1/devices/t-0004/state", {"state": "active", "more": 1}), 422, "invalid")
    problem(api.call("POST", "/v1/devices/t-0004/state", content=b"{"), 422, "invalid")
    problem(api.post("/v1/devices/T%2f/state", {"state": "active"}), 404, "no_such_route")
    problem(api.get("/v1/nothing"), 404, "no_such_route")
    problem(api.call("DELETE", "/v1/devices"), 405, "method_not_allowed")
    problem(api.get("/v1/orders", params={"limit": 100_000}), 422, "invalid")


def test_a_long_body_is_refused_before_it_is_read(server: BenchServer, api: Api) -> None:
    problem(api.call("POST", "/v1/devices", content=b"x" * 300_000), 413, "too_large")

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 16_384

    answer = api.call("POST", "/v1/devices", content=endless())
    assert answer.status_code == 413
    compressed = api.call(
        "POST", "/v1/devices", content=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}
    )
    problem(compressed, 422, "invalid")


def test_bytes_that_are_no_http_do_not_stop_the_server(server: BenchServer, api: Api) -> None:
    host, port = http_base(server).removeprefix("http://").split(":")
    for garbage in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000, b"\x16\x03\x01\x02"):
        with socket.create_connection((host, int(port)), 5) as raw:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(5)
            while raw.recv(4096):
                pass
    assert api.get("/healthz", role=None).status_code == 200


async def post_op(server: BenchServer, api: Api, frame: bytes, **headers: str) -> httpx.Response:
    """Send one op-frame as the terminal t-0001 would."""
    sent = {**COSE, "Tableside-Kid": kid_of(server, "t-0001"), **headers}
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        None, lambda: api.call("POST", "/v1/ops", role="device", headers=sent, content=frame)
    )


def test_a_sealed_op_over_http_is_committed_once(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server)
        op = device.make_op(COFFEE, COFFEE_MINOR)
        before = Ledger(server.state).order_count(SITE)
        answer = await post_op(server, api, device.seal(op.encode()))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/cose")
        reply = device.open_reply(answer.content)
        assert (reply.op_id, reply.status, reply.total_minor) == (op.op_id, Status.COMMITTED, COFFEE_MINOR)
        again = device.open_reply((await post_op(server, api, device.seal(op.encode()))).content)
        assert again == reply
        over_mqtt: Reply = await device.order(op)
        assert over_mqtt == reply
        assert Ledger(server.state).order_count(SITE) == before + 1

    run(scenario())


def test_a_forged_op_over_http_gets_one_and_the_same_refusal(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server)
        frame = device.seal(device.make_op(COFFEE, COFFEE_MINOR).encode())
        before = Ledger(server.state).order_count(SITE)
        texts = set()
        for forged in (frame[:-1] + bytes([frame[-1] ^ 1]), frame[:40], b"\xff" * 60, b""):
            answer = await post_op(server, api, forged)
            problem(answer, 422, "frame_refused")
            texts.add(answer.text)
        assert len(texts) == 1
        assert Ledger(server.state).order_count(SITE) == before
        await soon(lambda: refusals(server, "bad_mac") > 0, "the forgery is counted")

    run(scenario())


def test_an_op_of_no_session_gets_the_hint(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server)
        frame = bytearray(device.seal(device.make_op(COFFEE, COFFEE_MINOR).encode()))
        at = bytes(frame).index(device.sid)
        frame[at : at + 4] = b"\x01\x02\x03\x04"
        answer = await post_op(server, api, bytes(frame))
        hint = Hint.decode(answer.content)
        assert (hint.status, hint.ref) == (HintStatus.UNKNOWN_SESSION, b"\x01\x02\x03\x04")

    run(scenario())


def test_an_op_needs_its_own_devices_token_and_key(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server)
        frame = device.seal(device.make_op(COFFEE, COFFEE_MINOR).encode())
        problem(await post_op(server, api, frame, **{"Tableside-Kid": "0" * 16}), 403, "wrong_key")
        problem(await post_op(server, api, frame, **{"Tableside-Kid": "nonsense"}), 422, "invalid")
        problem(
            await post_op(server, api, frame, **{"Content-Type": "text/plain"}), 415, "unsupported_media_type"
        )
        problem(await post_op(server, api, frame * 20), 413, "too_large")

    run(scenario())


def test_a_suspended_device_is_not_heard_over_http(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server)
        frame = device.seal(device.make_op(COFFEE, COFFEE_MINOR).encode())
        loop = asyncio.get_running_loop()
        path = "/v1/devices/t-0001/state"
        await loop.run_in_executor(None, lambda: api.post(path, {"state": "suspended"}))
        try:
            answer = await post_op(server, api, frame)
            assert Hint.decode(answer.content).status == HintStatus.UNKNOWN_SESSION
        finally:
            await loop.run_in_executor(None, lambda: api.post(path, {"state": "active"}))

    run(scenario())


def test_orders_are_listed_page_by_page(server: BenchServer, api: Api) -> None:
    async def scenario() -> None:
        device = await online(server)
        for _ in range(3):
            await device.order(device.make_op(COFFEE, COFFEE_MINOR))

    run(scenario())
    seen, after = [], 0
    while True:
        page = api.get("/v1/orders", params={"after": after, "limit": 2}, role="waiter").json()
        seen += page["orders"]
        if page["next"] is None:
            break
        after = page["next"]
    known = Ledger(server.state).orders(SITE)
    assert [row["order"] for row in seen] == [row.order_number for row in known]
    assert sum(row["total_minor"] for row in seen) == sum(row.total_minor for row in known)
    assert api.get("/v1/orders", params={"table": "2"}).json() == {"orders": [], "next": None}


def test_too_many_calls_are_slowed_down_by_name(template: Path, tmp_path: Path) -> None:
    with a_server(template, tmp_path, "--limit-http", "40:60") as running:
        token = issue_token(running, "manager")["token"]
        with httpx.Client(base_url=http_base(running)) as client:
            headers = {"Authorization": f"Bearer {token}"}
            answers = [client.get("/v1/devices", headers=headers) for _ in range(60)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert refused
            problem(refused[0], 429, "rate_limited")
            assert 1 <= int(refused[0].headers["retry-after"]) <= 60
            assert ";r=0;" in refused[0].headers["ratelimit"]
            assert client.get("/healthz").status_code == 200


def test_a_guesser_of_tokens_is_slowed_down(template: Path, tmp_path: Path) -> None:
    with a_server(template, tmp_path) as running, httpx.Client(base_url=http_base(running)) as client:
        headers = {"Authorization": "Bearer ts_" + "A" * 43}
        statuses = [client.get("/v1/devices", headers=headers).status_code for _ in range(40)]
        assert statuses[0] == 401
        assert statuses[-1] == 429


def test_http_can_be_switched_off(template: Path, tmp_path: Path) -> None:
    with a_server(template, tmp_path, "--http", "none") as running:
        assert "http" not in json.loads((running.state / "server.json").read_text())
