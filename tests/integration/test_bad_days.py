"""Bad days: what docs/operations.md promises when disk, lock, clock or connections fail. Nothing is lost."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from http_kit import http_base
from server_bench import SITE, a_server, eventually, online, prepare_state, run, soon, terminal

from bench.benchmarks.load_client import LinkError
from bench.server import BenchServer
from server.app import OrderServer
from server.config import ServerConfig
from server.platform import Platform
from server.storage.ledger import Ledger
from server.wire.frames import HintStatus
from server.wire.ops import Line, Status

COFFEE = (Line(1, 2),)
COFFEE_MINOR = 520
DEADLINE_S = 60
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", str(template), str(tmp_path / "state")], check=True)
    return tmp_path / "state"


def start_and_fail(state: Path) -> str:
    """The one sentence of a server that cannot start; it may not override permissions, even as root."""
    argv = [sys.executable, "-m", "server", "run", "--state", str(state), "--ready-json"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--", *argv]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Somebody else writes and does not finish."""
    with closing(sqlite3.connect(state / "tableside.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_read_only_database_is_named_at_the_start(state: Path) -> None:
    database = state / "tableside.db"
    before = database.read_bytes()
    database.chmod(0o444)
    sentence = start_and_fail(state)
    assert "tableside.db" in sentence
    assert "permissions" in sentence
    assert database.read_bytes() == before


def test_a_damaged_page_stops_the_start_and_a_backup_brings_everything_back(
    template: Path, tmp_path: Path
) -> None:
    async def order(server: BenchServer) -> None:
        device = await online(server)
        assert (await device.order(device.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED

    with a_server(template, tmp_path) as server:
        run(order(server))
        server.admin("backup", str(tmp_path / "backup"))
        known = Ledger(server.state).orders(SITE)
    database = tmp_path / "state" / "tableside.db"
    data = bytearray(database.read_bytes())
    data[4096 * 3 : 4096 * 4] = b"\xa5" * 4096
    database.write_bytes(data)
    sentence = start_and_fail(tmp_path / "state")
    assert "damaged" in sentence
    assert "backup" in sentence
    assert database.read_bytes() == bytes(data)
    restored = tmp_path / "restored"
    restored_server = BenchServer(restored, tmp_path / "restored.log", SITE)
    restored_server.admin("restore", str(tmp_path / "backup"))
    restored_server.start()
    try:
        assert Ledger(restored).orders(SITE) == known
        run(order(restored_server))
        newest = Ledger(restored).orders(SITE)[-1]
        assert newest.lsn > known[-1].lsn + 1000
        assert newest.order_number > known[-1].order_number + 1000
    finally:
        assert restored_server.stop() == 0


def test_a_damaged_database_is_not_backed_up(state: Path, tmp_path: Path) -> None:
    database = state / "tableside.db"
    data = bytearray(database.read_bytes())
    data[4096 * 3 : 4096 * 4] = b"\xa5" * 4096
    database.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "server", "backup", str(tmp_path / "b"), "--state", str(state)],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "damaged" in done.stderr
    assert not (tmp_path / "b").exists()


def test_backups_taken_under_load_hold_every_order_confirmed_before(template: Path, tmp_path: Path) -> None:
    async def scenario(server: BenchServer) -> None:
        device = await online(server)
        loop = asyncio.get_running_loop()
        confirmed: list[bytes] = []
        over = asyncio.Event()

        async def ordering() -> None:
            while not over.is_set():
                reply = await device.order(device.make_op(COFFEE, COFFEE_MINOR))
                assert reply.status == Status.COMMITTED
                confirmed.append(reply.op_id)

        task = asyncio.create_task(ordering())
        for number in range(3):
            target = tmp_path / f"backup-{number}"
            before = list(confirmed)
            await loop.run_in_executor(None, server.admin, "backup", str(target))
            assert target.stat().st_mode & 0o777 == 0o600
            held = {order.op_id for order in Ledger(target).orders(SITE)}
            assert set(before) <= held
        over.set()
        await task
        assert len(confirmed) > 3

    with a_server(template, tmp_path) as server:
        run(scenario(server))


def test_a_locked_database_delays_orders_and_loses_none(template: Path, tmp_path: Path) -> None:
    async def scenario(server: BenchServer) -> None:
        device = await online(server)
        op = device.make_op(COFFEE, COFFEE_MINOR)
        with locked(server.state):
            asking = asyncio.create_task(device.order(op))
            done, _ = await asyncio.wait({asking}, timeout=1.0)
            assert not done  # neither acknowledged nor refused: it waits for the lock
            assert Ledger(server.state).order_count(SITE) == 0
            loop = asyncio.get_running_loop()
            not_ready = await loop.run_in_executor(None, httpx.get, http_base(server) + "/readyz")
            assert not_ready.status_code == 503
        assert (await asking).status == Status.COMMITTED
        assert Ledger(server.state).order_count(SITE) == 1

    with a_server(template, tmp_path) as server:
        run(scenario(server))


def test_a_database_locked_for_long_breaks_the_connection_without_an_answer(
    template: Path, tmp_path: Path
) -> None:
    async def scenario(server: BenchServer) -> None:
        device = await online(server)
        op = device.make_op(COFFEE, COFFEE_MINOR)
        with locked(server.state):
            with pytest.raises((LinkError, TimeoutError, ConnectionError)):
                await device.order(op, deadline_s=14)
            assert Ledger(server.state).order_count(SITE) == 0
        await device.connect(server.host, server.port)
        assert (await device.order(op)).status == Status.COMMITTED
        assert Ledger(server.state).order_count(SITE) == 1

    with a_server(template, tmp_path) as server:
        run(scenario(server))


class SetClock:
    """A clock somebody can set."""

    def __init__(self, now_s: int) -> None:
        self.now_s = now_s

    def unix_time(self) -> int:
        """Seconds since 1970."""
        return self.now_s


def test_a_clock_set_back_a_year_stops_no_order(state: Path) -> None:
    async def scenario() -> None:
        clock = SetClock(1_800_000_000)
        server = OrderServer(ServerConfig(state=state, beacon_interval_s=0.1), Platform(clock=clock))
        await server.start()
        try:
            device = terminal()
            await device.connect(*server.address)
            await device.hello()
            first = await device.order(device.make_op(COFFEE, COFFEE_MINOR))
            clock.now_s -= 365 * 24 * 3600
            second = await device.order(device.make_op(COFFEE, COFFEE_MINOR))
            assert (first.status, second.status) == (Status.COMMITTED, Status.COMMITTED)
            assert second.lsn == first.lsn + 1
            other = terminal(2)
            await other.connect(*server.address)
            await other.hello()
            assert (await other.order(other.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED
        finally:
            await server.stop()

    run(scenario())


def test_a_clock_set_ahead_ends_sessions_and_loses_no_order(state: Path) -> None:
    async def scenario() -> None:
        clock = SetClock(1_800_000_000)
        server = OrderServer(ServerConfig(state=state, beacon_interval_s=0.1), Platform(clock=clock))
        await server.start()
        try:
            device = terminal()
            await device.connect(*server.address)
            await device.hello()
            clock.now_s += 7 * 24 * 3600
            op = device.make_op(COFFEE, COFFEE_MINOR)
            with pytest.raises(TimeoutError):
                await device.order(op, deadline_s=0.5)
            assert device.hints[-1].status == HintStatus.UNKNOWN_SESSION
            before = device.beacon
            await soon(lambda: device.beacon is not before, "a beacon dated by the new clock")
            await device.hello()
            assert (await device.order(op)).status == Status.COMMITTED
        finally:
            await server.stop()
        assert Ledger(state).order_count(SITE) == 1

    run(scenario())


def test_every_terminal_of_a_house_reconnects_at_once(template: Path, tmp_path: Path) -> None:
    async def scenario(server: BenchServer) -> None:
        devices = [terminal(number) for number in (1, 2, 3, 4)]

        async def back(number: int) -> None:
            device = devices[number]
            await device.connect(server.host, server.port)
            await device.hello()
            assert (await device.order(device.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED

        for number, device in enumerate(devices):
            await back(number)
            device.vanish()
        server.restart()
        for device in devices:
            device.handshake = next(
                row.handshake for row in Ledger(server.state).devices(SITE) if row.device == device.device
            )
        await asyncio.gather(*(back(number) for number in range(len(devices))))
        assert Ledger(server.state).order_count(SITE) == 2 * len(devices)

    with a_server(template, tmp_path) as server:
        run(scenario(server))


def test_strangers_at_the_door_do_not_keep_a_terminal_out(template: Path, tmp_path: Path) -> None:
    """Hundreds of half-open connections: the site goes on."""

    async def scenario(server: BenchServer) -> None:
        device = await online(server)
        strangers = [await asyncio.open_connection(server.host, server.port) for _ in range(300)]
        try:
            assert (await device.order(device.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED
        finally:
            for _, writer in strangers:
                writer.close()
        other = await online(server, 2)
        assert (await other.order(other.make_op(COFFEE, COFFEE_MINOR))).status == Status.COMMITTED

    with a_server(template, tmp_path) as server:
        run(scenario(server))
        eventually(lambda: Ledger(server.state).order_count(SITE) == 2, "both orders are there")
