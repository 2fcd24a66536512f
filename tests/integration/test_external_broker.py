"""The order path over a real mosquitto: the same promises as with the embedded broker."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_bench import PASSWORD, SITE, LinkError, online, prepare_state, run, soon, terminal

from bench.benchmarks.load_client import MqttLink, SoftTerminal
from bench.mosquitto import PrivateMosquitto
from bench.paths import ROOT
from bench.server import BenchServer
from server.config import parse_broker
from server.storage.ledger import Ledger
from server.transport import external, uplink
from server.transport.external import ExternalBroker
from server.wire.ops import Line, Op, Reply, Status

ESPRESSO, ESPRESSO_MINOR = 1, 260


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    """A server with a mosquitto of its own, for all tests here; it must leave without a traceback."""
    folder = tmp_path_factory.mktemp("beside")
    shutil.copytree(template, folder / "state")
    broker = PrivateMosquitto(folder / "broker")
    server = BenchServer(folder / "state", folder / "server.log", SITE, broker=broker)
    server.start()
    try:
        yield server
    finally:
        status = server.stop()
        log = server.log_text()
    assert status == 0, log
    assert "Traceback" not in log, log


class Guest:
    """Sends orders and remembers every sealed reply; nothing is sent twice unless a test says so."""

    def __init__(self, terminal: SoftTerminal) -> None:
        self.terminal = terminal
        self.sent: dict[bytes, Op] = {}
        self.replies: dict[bytes, list[Reply]] = {}
        terminal.on_reply = lambda reply: self.replies.setdefault(reply.op_id, []).append(reply)

    def order(self, count: int) -> None:
        """Send new orders of one espresso."""
        for _ in range(count):
            op = self.terminal.make_op((Line(ESPRESSO, 1),), ESPRESSO_MINOR)
            self.sent[op.op_id] = op
            self.terminal.send(op)

    def resend_unanswered(self) -> None:
        """What a terminal's journal does after a reconnect."""
        for op_id in self.sent.keys() - self.replies.keys():
            self.terminal.send(self.sent[op_id])

    @property
    def all_answered(self) -> bool:
        """Whether every order has a reply."""
        return self.replies.keys() == self.sent.keys()

    def judge(self, ledger: Ledger) -> None:
        """Every order is stored once, and every reply to it says the same."""
        mine = self.terminal.device
        stored = [
            order.op_id for order in ledger.orders(SITE) if order.device == mine and order.op_id in self.sent
        ]
        assert sorted(stored) == sorted(self.sent)
        for replies in self.replies.values():
            assert set(replies) == {replies[0]}
            assert replies[0].status == Status.COMMITTED


def test_an_order_over_mosquitto_is_committed_once_and_answered(server: BenchServer) -> None:
    async def scenario() -> None:
        guest = Guest(await online(server))
        guest.order(20)
        await soon(lambda: guest.all_answered, "20 answers")
        guest.terminal.send(guest.sent[next(iter(guest.sent))])  # the same op in another transmission
        await soon(lambda: sum(map(len, guest.replies.values())) == 21, "the stored answer again")
        guest.judge(server.ledger)

    run(scenario())


def test_orders_a_killed_server_had_not_acknowledged_are_delivered_again(server: BenchServer) -> None:
    async def scenario() -> None:
        guest = Guest(await online(server))
        link = guest.terminal.link
        assert link is not None
        guest.order(5)
        await soon(lambda: guest.all_answered, "answers before the kill")
        os.kill(server.pid, signal.SIGSTOP)
        guest.order(60)
        await soon(lambda: not link.unacked, "mosquitto has taken all of them")
        assert len(guest.replies) == 5, "a stopped server answers nothing"
        server.restart()  # kill -9; the orders are in its socket, its broker's session, or nowhere
        await soon(lambda: guest.all_answered, "answers without any terminal sending again")
        guest.judge(server.ledger)

    run(scenario())


def test_what_was_committed_but_not_acknowledged_is_not_done_twice(server: BenchServer) -> None:
    async def scenario() -> None:
        guest = Guest(await online(server))
        for _ in range(2):
            guest.order(150)
            await soon(lambda: len(guest.replies) > len(guest.sent) - 140, "the batch has begun")
            server.restart()  # kill -9 while batches are being committed and acknowledged
        await _resend_until_answered(guest)  # a reply on its way to the broker died with the server
        guest.judge(server.ledger)

    run(scenario())


@pytest.mark.parametrize("ending", [PrivateMosquitto.stop, PrivateMosquitto.kill], ids=["stop", "kill"])
def test_a_restarted_broker_loses_nothing_confirmed(
    server: BenchServer, ending: Callable[[PrivateMosquitto], None]
) -> None:
    async def scenario() -> None:
        broker, pid = server.broker, server.pid
        assert broker is not None
        guest = Guest(await online(server, clean=False))
        guest.order(100)
        await soon(lambda: len(guest.replies) >= 10, "some answers")
        confirmed = set(guest.replies)
        ending(broker)
        shutil.rmtree(broker.folder / "data")  # and it remembers nothing at all
        broker.start(server.admin)
        await _reconnect(guest.terminal, server)
        await _resend_until_answered(guest)
        assert server.pid == pid, "the server went on"
        assert confirmed <= {order.op_id for order in server.ledger.orders(SITE)}
        guest.judge(server.ledger)
        newcomer = await online(server, 2)  # the beacon is there again, with the menu it names
        assert any(topic.startswith(f"s/{SITE}/menu/") for topic in newcomer.retained)

    run(scenario())


async def _resend_until_answered(guest: Guest) -> None:
    """A broker without memory drops what comes before its server is back: a terminal asks again and again."""
    async with asyncio.timeout(15):
        while not guest.all_answered:
            guest.resend_unanswered()
            await asyncio.sleep(0.3)


async def _reconnect(terminal: SoftTerminal, server: BenchServer) -> None:
    while True:
        try:
            await terminal.connect(server.host, server.port, clean=False)
            return
        except (LinkError, OSError):
            await asyncio.sleep(0.05)


def test_a_terminal_can_neither_speak_nor_listen_for_another(server: BenchServer) -> None:
    async def scenario() -> None:
        thief, honest = await online(server, 1), Guest(await online(server, 2))
        assert thief.link is not None
        heard: list[str] = []
        thief.on_other = lambda topic, payload: heard.append(topic)
        for wish in (f"d/{SITE}/t-0002/#", "d/#", f"o/{SITE}/t-0002/#", "#"):
            await thief.link.subscribe(wish)  # mosquitto grants it, and delivers nothing
        op = honest.terminal.make_op((Line(ESPRESSO, 1),), ESPRESSO_MINOR)
        frame = honest.terminal.seal(op.encode())
        thief.link.publish(f"o/{SITE}/t-0002/op", frame)  # a genuine frame, from the wrong mouth
        thief.link.publish(f"d/{SITE}/t-0002/reply", b"forged")
        honest.order(3)
        await soon(lambda: len(honest.replies) == 3, "the honest terminal's own orders")
        honest.judge(server.ledger)  # the stolen frame was not among them
        assert honest.terminal.bad_replies == 0, "the forged reply did not arrive"
        assert not any("t-0002" in topic for topic in heard)

    run(scenario())


def test_a_suspended_terminal_loses_its_login(server: BenchServer) -> None:
    async def scenario() -> None:
        assert (await online(server, 4)).link is not None
        server.admin("devices", "suspend", "t-0004")
        server.tell_broker()

        def turned_away() -> bool:
            return asyncio.run(_login_code(server)) == "CONNACK 5"

        await soon(turned_away, "mosquitto has read the new password file")

    run(scenario())


async def _login_code(server: BenchServer) -> str:
    made = terminal(4)
    try:
        await made.connect(server.host, server.port)
    except LinkError as error:
        return str(error)
    finally:
        made.vanish()
        await asyncio.sleep(0)
    return "welcome"


@pytest.mark.parametrize(
    ("password", "stopped", "said"),
    [
        ("wrong", False, ("refused the login", "'server.demo'", "broker-config")),
        ("wrong", True, ("cannot reach the broker", "Connection refused", "mosquitto -c")),
    ],
    ids=["wrong password", "no broker"],
)
def test_a_broker_that_cannot_be_used_is_one_sentence_with_the_next_step(
    tmp_path: Path, password: str, stopped: bool, said: tuple[str, ...]
) -> None:
    other = BenchServer(tmp_path / "none", tmp_path / "log")  # only for its admin commands
    broker = PrivateMosquitto(tmp_path / "broker")
    broker.start(other.admin)
    try:
        if stopped:
            broker.stop()
        url = f"mqtt://server.demo:{password}@127.0.0.1:{broker.port}"
        command = [sys.executable, "-m", "server", "run", "--state", str(tmp_path / "state"), "--broker", url]
        done = subprocess.run(
            [*command, "--http", "none"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
    finally:
        broker.stop()
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert all(words in done.stderr for words in said), done.stderr
    assert password not in done.stderr


class Office:
    """A mosquitto, an ``ExternalBroker`` in this process whose ingest the test plays, a terminal's link."""

    def __init__(self, template: Path, folder: Path) -> None:
        shutil.copytree(template, folder / "state")
        self._admin = BenchServer(folder / "state", folder / "log").admin
        self._mosquitto = PrivateMosquitto(folder / "broker")
        self.taken: list[tuple[bytes, Callable[[bool], None]]] = []

    async def __aenter__(self) -> Office:
        self._mosquitto.start(self._admin)
        login = parse_broker(self._mosquitto.server_option)
        assert login is not None
        self.login = login
        await self.begin()
        self.link = MqttLink("t-0001", PASSWORD, lambda topic, payload, retain: None)
        await self.link.open("127.0.0.1", login.port)
        return self

    async def begin(self) -> None:
        """Start a server's side of it, with nothing taken yet."""
        self.taken.clear()
        self.broker = ExternalBroker(
            site=SITE,
            login=self.login,
            known=lambda device: device == "t-0001",
            on_publish=lambda device, kind, payload, done: self.taken.append((payload, done)),
            refuse=lambda device, code: None,
        )
        await self.broker.start()

    async def __aexit__(self, *_: object) -> None:
        self.link.abort()
        await self.broker.shutdown()
        self._mosquitto.stop()

    async def publish(self, count: int) -> None:
        """Publish numbered ops, a few hundred at a time, as fast as mosquitto takes them."""
        for number in range(count):
            self.link.publish(f"o/{SITE}/t-0001/op", number.to_bytes(4, "big") + bytes(96))
            if len(self.link.unacked) > 300:
                await soon(lambda: len(self.link.unacked) < 50, "mosquitto takes them")


def test_nothing_is_acknowledged_before_its_commit(template: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Office(template, tmp_path) as office:
            await office.publish(5)
            await soon(lambda: len(office.taken) == 5, "all came")
            first = office.taken.pop(0)
            first[1](True)  # one is committed, four are not
            await asyncio.sleep(0.1)  # its PUBACK is on its way, and no other may be
            await office.broker.shutdown()
            await office.begin()
            await soon(lambda: len(office.taken) == 4, "the four others came again")
            for _, done in office.taken:
                done(True)
            await asyncio.sleep(0.1)
            await office.broker.shutdown()
            await office.begin()
            await office.publish(1)
            await soon(lambda: len(office.taken) == 1, "a new one, and none of the old")
            office.taken[0][1](True)

    run(scenario())


def test_a_message_that_could_not_be_stored_is_offered_again(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Office(template, tmp_path) as office:
            await office.publish(1)
            await soon(lambda: len(office.taken) == 1, "it came")
            office.taken[0][1](False)
            await soon(lambda: len(office.taken) == 2, "it came again")
            assert office.taken[0][0] == office.taken[1][0]
            office.taken[1][1](True)

    monkeypatch.setattr(external, "RETRY_S", 0.05)
    run(scenario())


def test_reading_stops_while_too_much_waits_for_its_commit(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 50
    slack = 4000  # what a read of 256 KiB and a stream buffer of 128 KiB hold comes on top
    count = 8000

    async def scenario() -> None:
        async with Office(template, tmp_path) as office:
            await office.publish(count)
            await soon(lambda: len(office.taken) >= bound, "the bound is reached")
            await asyncio.sleep(0.3)  # nothing more may come, however long we wait
            settled = 0
            while settled < count:
                await soon(lambda seen=settled: len(office.taken) > seen, "the next ones")
                assert len(office.taken) - settled < bound + slack
                for _, done in office.taken[settled : settled + 100]:
                    done(True)
                    settled += 1
            assert [payload[:4] for payload, _ in office.taken] == [
                n.to_bytes(4, "big") for n in range(count)
            ]

    monkeypatch.setattr(uplink, "MAX_UNDER_WAY", bound)
    run(scenario())
