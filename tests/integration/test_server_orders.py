"""The way of an order through a real server process: handshake, op, commit, reply - and everything that may
be thrown at it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from server_bench import (
    SITE,
    a_server,
    eventually,
    online,
    prepare_state,
    refusals,
    run,
    soon,
    terminal,
)

from bench.benchmarks.load_client import LinkError, SoftTerminal
from bench.server import BenchServer
from server.wire.frames import Hint, HintStatus
from server.wire.menus import Menu, MenuChunk, join
from server.wire.ops import Line, RejectCode, Status
from server.wire.updates import Offer, OtaChunk, OtaGet

ESPRESSO, ESPRESSO_MINOR = 1, 260
COFFEE = (Line(ESPRESSO, 2),)
COFFEE_MINOR = 2 * ESPRESSO_MINOR
DEMO_MENU = Path(__file__).resolve().parents[2] / "fixtures" / "menu" / "demo.json"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    """One server for the tests that only add to its books."""
    with a_server(template, tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def own_server(template: Path, tmp_path: Path) -> Iterator[BenchServer]:
    with a_server(template, tmp_path) as running:
        yield running


def newest_order(server: BenchServer) -> int:
    """The highest order number so far."""
    return server.ledger.order_count(SITE)


def test_an_order_is_committed_answered_and_acknowledged(server: BenchServer) -> None:
    async def scenario() -> None:
        before = newest_order(server)
        guest = await online(server)
        assert guest.link is not None
        reply = await guest.order(guest.make_op(COFFEE, COFFEE_MINOR))
        assert (reply.status, reply.order_number, reply.total_minor) == (
            Status.COMMITTED,
            before + 1,
            COFFEE_MINOR,
        )
        (order,) = server.ledger.orders(SITE, after=before)
        assert (order.device, order.table, order.lsn) == ("t-0001", "1", reply.lsn)
        link = guest.link
        await soon(lambda: not link.unacked, "everything is acknowledged")

    run(scenario())


def test_a_duplicate_is_answered_again_and_has_one_effect(server: BenchServer) -> None:
    async def scenario() -> None:
        before = newest_order(server)
        guest = await online(server)
        op = guest.make_op(COFFEE, COFFEE_MINOR)
        frame = guest.seal(op.encode())
        first = await guest.ask_op(op.op_id, frame)
        assert await guest.ask_op(op.op_id, frame) == first, "the very same bytes"
        assert await guest.order(op) == first, "a new transmission"
        other = await guest.order(guest.make_op((Line(ESPRESSO, 1),), ESPRESSO_MINOR, op_id=op.op_id))
        assert (other.status, other.arg) == (Status.REJECTED, RejectCode.BODY_MISMATCH)
        assert server.ledger.order_count(SITE) == before + 1

    run(scenario())


def test_answers_survive_a_server_kill_and_so_does_the_session(own_server: BenchServer) -> None:
    async def scenario() -> None:
        guest = await online(own_server)
        op = guest.make_op(COFFEE, COFFEE_MINOR)
        first = await guest.order(op)
        own_server.restart()  # from this thread: children die with the thread that started them
        await guest.connect(own_server.host, own_server.port)
        assert await guest.order(op) == first, "the session's row outlived the process"
        assert (await guest.order(guest.make_op(COFFEE, COFFEE_MINOR))).order_number == 2

    run(scenario())


def test_a_suspended_device_is_silenced_within_a_second(server: BenchServer) -> None:
    async def scenario() -> None:
        guest = await online(server, 4)
        assert guest.link is not None
        begun = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(None, server.admin, "devices", "suspend", "t-0004")
        done = time.monotonic()
        op = guest.make_op(COFFEE, COFFEE_MINOR)
        guest.send(op)
        await asyncio.wait_for(guest.link.closed, 5)
        assert time.monotonic() - done < 1.0
        assert "t-0004" not in {session.device for session in server.ledger.sessions(SITE)}
        assert "t-0004" not in {order.device for order in server.ledger.orders(SITE)}
        with pytest.raises(LinkError):
            await guest.connect(server.host, server.port)
        assert begun < done

    run(scenario())


def test_a_reactivated_device_needs_a_new_handshake(server: BenchServer) -> None:
    async def scenario() -> None:
        guest = await online(server, 3)
        for word in ("suspend", "activate"):
            await asyncio.get_running_loop().run_in_executor(None, server.admin, "devices", word, "t-0003")
        await asyncio.sleep(0.5)
        await guest.connect(server.host, server.port)
        guest.send(guest.make_op(COFFEE, COFFEE_MINOR))
        await soon(lambda: len(guest.hints) == 1, "a hint comes")
        assert guest.hints[0].status == HintStatus.UNKNOWN_SESSION
        await guest.hello()
        assert (await guest.order(guest.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED

    run(scenario())


def test_a_new_hello_ends_the_old_session(server: BenchServer) -> None:
    async def scenario() -> None:
        before = newest_order(server)
        guest = await online(server)
        old = guest.seal(guest.make_op(COFFEE, COFFEE_MINOR).encode())
        await guest.hello()
        guest.publish_op(old)
        await soon(lambda: bool(guest.hints), "a hint comes")
        assert guest.hints[0].status == HintStatus.UNKNOWN_SESSION
        assert server.ledger.order_count(SITE) == before

    run(scenario())


def test_the_identical_hello_gets_the_identical_accept_and_a_lower_counter_none(server: BenchServer) -> None:
    async def scenario() -> None:
        guest = await online(server)
        first = await guest.ask_hello(guest.hello_frame)
        assert await guest.ask_hello(guest.hello_frame) == first
        guest.handshake -= 1
        with pytest.raises(LinkError, match="status=18"):
            await guest.hello()
        stored = {session.device: session.handshake for session in server.ledger.sessions(SITE)}
        assert stored[guest.device] == guest.handshake

    run(scenario())


def test_hellos_are_limited_before_any_rsa(template: Path, tmp_path: Path) -> None:
    with a_server(template, tmp_path, "--limit-hello", "0.01:2") as server:

        async def scenario() -> None:
            guest = await online(server)
            await guest.ask_hello(guest.hello_frame)
            hint = Hint.decode(await guest.ask_hello(guest.hello_frame))
            assert hint.status == HintStatus.RATE_LIMITED
            assert hint.ref == sha256(guest.hello_frame).digest()[:8]
            assert hint.arg > 1000

        run(scenario())
        eventually(lambda: refusals(server, "hello_rate_limited") == 1, "the refusal is counted")


def test_orders_beyond_the_limit_get_a_sealed_rate_limited_and_succeed_later(
    template: Path, tmp_path: Path
) -> None:
    with a_server(template, tmp_path, "--limit-op", "4:2") as server:

        async def scenario() -> None:
            guest = await online(server)
            for _ in range(2):
                assert (await guest.order(guest.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED
            op = guest.make_op(COFFEE, COFFEE_MINOR)
            limited = await guest.order(op)
            assert limited.status == Status.RATE_LIMITED
            assert 0 < limited.arg <= 1000
            await asyncio.sleep(limited.arg / 1000 + 0.05)
            assert (await guest.order(op)).status == Status.COMMITTED

        run(scenario())
        assert server.ledger.order_count(SITE) == 3


def test_counted_stock_sells_out_exactly_and_two_tables_cannot_share_the_last(server: BenchServer) -> None:
    server.admin("stock", "set", str(ESPRESSO), "7")

    async def scenario() -> None:
        guests = [await online(server, number) for number in (1, 2, 3)]
        tries = [
            guest.order(guest.make_op((Line(ESPRESSO, 1),), ESPRESSO_MINOR))
            for guest in guests
            for _ in range(5)
        ]
        replies = await asyncio.gather(*tries)
        outcome = [reply.status for reply in replies]
        assert (outcome.count(Status.COMMITTED), outcome.count(Status.SOLD_OUT)) == (7, 8)

    run(scenario())
    assert server.ledger.stock(SITE) == {ESPRESSO: 0}
    server.admin("stock", "set", str(ESPRESSO), "none")


def test_a_menu_published_while_serving_reprices_and_reaches_the_terminals(
    own_server: BenchServer, tmp_path: Path
) -> None:
    dearer = json.loads(DEMO_MENU.read_text())
    dearer["version"] += 1
    next(item for item in dearer["items"] if item["id"] == ESPRESSO)["price_minor"] += 10
    (tmp_path / "menu.json").write_text(json.dumps(dearer))

    async def scenario() -> None:
        guest = await online(own_server)
        publish = own_server.admin, "menu", "publish", str(tmp_path / "menu.json")
        await asyncio.get_running_loop().run_in_executor(None, *publish)
        reply = await guest.order(guest.make_op(COFFEE, COFFEE_MINOR))
        assert (reply.status, reply.arg, reply.total_minor) == (
            Status.REPRICE,
            dearer["version"],
            COFFEE_MINOR + 20,
        )
        await soon(lambda: menu_version(guest) == dearer["version"], "the new chunks arrive")
        frame = join(chunks(guest))
        assert guest.beacon is not None
        await soon(
            lambda: guest.beacon is not None and guest.beacon.menu_version == dearer["version"],
            "a beacon says so",
        )
        assert sha256(frame).digest() == guest.beacon.menu_hash
        assert guest.server_key is not None
        assert len(Menu.open(frame, guest.server_key, SITE).items) == len(dearer["items"])

    run(scenario())


def chunks(guest: SoftTerminal) -> list[MenuChunk]:
    """The retained menu chunks a terminal has seen."""
    found = [MenuChunk.decode(payload) for topic, payload in guest.retained.items() if "/menu/" in topic]
    newest = max(chunk.version for chunk in found)
    return [chunk for chunk in found if chunk.version == newest]


def menu_version(guest: SoftTerminal) -> int:
    """The version of a complete set of chunks, 0 while it is incomplete."""
    found = chunks(guest)
    return found[0].version if len(found) == found[0].count else 0


def test_bad_orders_are_answered_with_their_code_and_the_next_good_one_works(server: BenchServer) -> None:
    async def scenario() -> None:
        before = newest_order(server)
        guest = await online(server)
        cases = [
            ((Line(ESPRESSO, 0),), RejectCode.BAD_QUANTITY),
            ((Line(ESPRESSO, -1),), RejectCode.BAD_QUANTITY),
            ((Line(ESPRESSO, 100),), RejectCode.BAD_QUANTITY),
            ((Line(9999, 1),), RejectCode.UNKNOWN_ITEM),
            ((Line(ESPRESSO, 1, (9999,)),), RejectCode.UNKNOWN_MODIFIER),
            ((Line(ESPRESSO, 1),) * 33, RejectCode.TOO_LARGE),
            ((), RejectCode.MALFORMED),
        ]
        for lines, code in cases:
            reply = await guest.order(guest.make_op(lines, 0))
            assert (reply.status, reply.arg, reply.order_number) == (Status.REJECTED, code, 0)
        assert (await guest.order(guest.make_op(COFFEE, COFFEE_MINOR))).order_number == before + 1

    run(scenario())


def test_a_flipped_bit_anywhere_in_an_op_changes_nothing(server: BenchServer) -> None:
    async def scenario() -> None:
        before = server.ledger.answers(SITE)
        guest = await online(server)
        assert guest.link is not None
        frame = guest.seal(guest.make_op(COFFEE, COFFEE_MINOR).encode())
        for position in range(len(frame)):
            flipped = bytearray(frame)
            flipped[position] ^= 1 << position % 8
            guest.publish_op(bytes(flipped))
        link = guest.link
        await soon(lambda: not link.unacked, "all are acknowledged")
        assert server.ledger.answers(SITE) == before

    run(scenario())


def test_a_sealed_op_of_another_device_is_refused(server: BenchServer) -> None:
    async def scenario() -> None:
        before = server.ledger.answers(SITE)
        one, two = await online(server, 1), await online(server, 2)
        two.publish_op(one.seal(one.make_op(COFFEE, COFFEE_MINOR).encode()))
        await soon(lambda: bool(two.hints), "a hint comes")
        assert server.ledger.answers(SITE) == before

    run(scenario())


def test_a_published_update_is_offered_and_served(server: BenchServer, tmp_path: Path) -> None:
    from server.devices.keyfiles import load_signer
    from server.releases.bundle import Target, build_bundle, certify
    from server.releases.files import save

    keys = Path(__file__).resolve().parents[2] / "fixtures" / "keys"
    release = load_signer(keys / "release.pem")
    body = bytes(range(256)) * 20
    bundle = build_bundle(
        {"assets/rates.bin": body},
        Target("process", 0x10100),
        release,
        certify(load_signer(keys / "root.pem"), release.spki),
    )
    save(bundle, tmp_path / "release")
    server.admin("release", "publish", str(tmp_path / "release"), "--percent", "100")

    async def scenario() -> None:
        guest = terminal()
        got: dict[str, list[bytes]] = {}
        guest.on_other = lambda topic, payload: got.setdefault(topic, []).append(payload)
        await guest.connect(server.host, server.port)
        assert guest.link is not None
        here = f"o/{SITE}/{guest.device}"
        guest.link.publish(f"{here}/state", b"\x84\x01\x1a\x00\x01\x00\x00\x01\x00")
        there = f"d/{SITE}/{guest.device}/ota"
        await soon(lambda: f"{there}/offer" in got, "the offer comes")
        assert Offer.decode(got[f"{there}/offer"][0]) == bundle.offer
        guest.link.publish(f"{here}/ota/get", OtaGet(bundle.hash[:8], 1, 0, 16).encode())
        await soon(lambda: len(got.get(f"{there}/chunk", [])) == 5, "its chunks come")
        assert b"".join(OtaChunk.decode(frame).data for frame in got[f"{there}/chunk"]) == body
        guest.link.publish(f"{here}/ota/state", b"\x85\x1a\x00\x01\x00\x00\x00\x03\x18\x40\x00")
        await soon(
            lambda: [s.offset for s in server.ledger.update_states(SITE)] == [64], "its report is stored"
        )

    run(scenario())
