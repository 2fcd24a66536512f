"""A real server on PostgreSQL: first start, orders, staff, commands, and days on which the database fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from http_kit import http_base
from server_bench import SITE, LinkError, a_server, online, prepare_state, run, soon
from test_server_crash import Guest

from bench.postgres import NAME, PROGRAMS, PrivatePostgres
from bench.server import BenchServer
from server import cli
from server.config import ServerConfig
from server.storage.backup import LSN_LEAP
from server.storage.database import StorageError, open_database
from server.storage.ledger import Ledger
from server.storage.location import URL_NAME
from server.storage.postgres import LoginRefused, Unreachable
from server.wire.ops import Line, Status

DEVICES = ("t-0001", "t-0002", "t-0003", "t-0004")
COFFEE, COFFEE_MINOR = (Line(1, 2),), 520
OUTAGES = 3
LOAD_S = 0.6


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    server = PrivatePostgres()
    with server:
        yield server


@pytest.fixture(scope="module")
def template(postgres: PrivatePostgres, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with its database at ``postgres.url``; each test gets a copy of both."""
    return prepare_state(tmp_path_factory.mktemp("template"), "--database", postgres.url)


@pytest.fixture
def state(postgres: PrivatePostgres, template: Path, tmp_path: Path) -> Iterator[Path]:
    copied = tmp_path / "prepared"
    shutil.copytree(template, copied)
    (copied / URL_NAME).write_text(postgres.make_database("copy", template=NAME))
    yield copied
    postgres.drop_database("copy")


def secret(postgres: PrivatePostgres) -> str:
    """The password in the URL."""
    return postgres.url.partition("://")[2].partition(":")[2].partition("@")[0]


Failing = Callable[..., str]


@pytest.fixture
def start_and_fail(template: Path, capsys: pytest.CaptureFixture[str]) -> Failing:
    """The one sentence of `server run` with options that cannot work, on a folder that has keys."""

    def started(state: Path, *options: str, keys: bool = True) -> str:
        if keys:
            shutil.copytree(template / "keys", state / "keys")
        assert cli.main(["run", "--state", str(state), "--ready-json", *options]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1, said.err
        return said.err

    return started


def test_orders_and_staff_work_and_survive_a_kill_of_the_server(
    postgres: PrivatePostgres, state: Path, tmp_path: Path
) -> None:
    async def whole(server: BenchServer) -> None:
        device = await online(server)
        op = device.make_op(COFFEE, COFFEE_MINOR)
        first = await device.order(op)
        assert (first.status, first.lsn) == (Status.COMMITTED, 1)
        server.restart()
        device = await online(server)
        assert await device.order(op) == first
        token = server.admin("tokens", "add", "anna", "--role", "manager").splitlines()[-1]
        await soon(lambda: act(server, token, "GET", "/v1/tables").status_code == 200, "the token counts")
        calls = [act(server, token, "POST", "/v1/seatings/1/bill") for _ in range(2)]
        assert [call.status_code for call in calls] == [201, 201]
        assert calls[0].content == calls[1].content
        assert calls[1].headers["Idempotency-Replayed"] == "true"
        assert act(server, token, "GET", "/v1/bills/1").json()["total_minor"] == COFFEE_MINOR
        stock = act(server, token, "PUT", "/v1/items/1/stock", {"count": 1})
        assert stock.status_code == 200, stock.text
        assert (await device.order(device.make_op(COFFEE, COFFEE_MINOR))).status == Status.SOLD_OUT
        assert len(act(server, token, "GET", "/v1/devices").json()) == len(DEVICES)

    with a_server(state, tmp_path) as server:
        run(whole(server))
        assert '"order_number": 1' in server.admin("orders", "--json")
        assert "pg_dump" in refused_backup(server, tmp_path)
    assert secret(postgres) not in server.log_text()
    assert stat.S_IMODE((tmp_path / "state" / URL_NAME).stat().st_mode) == 0o600 or os.geteuid() == 0
    assert not (tmp_path / "state" / "tableside.db").exists()


def test_a_second_server_answers_for_the_first_and_sees_what_changed_there(
    state: Path, tmp_path: Path
) -> None:
    async def whole(first: BenchServer, second: BenchServer) -> None:
        device = await online(first)
        op = device.make_op(COFFEE, COFFEE_MINOR)
        answer = await device.order(op)
        moved = await online(second)
        assert await moved.order(op) == answer
        other = await online(second, 2)
        assert (await other.order(other.make_op(COFFEE, COFFEE_MINOR))).lsn == answer.lsn + 1
        first.admin("stock", "set", "1", "1")
        assert (await other.order(other.make_op(COFFEE, COFFEE_MINOR))).status == Status.SOLD_OUT

    (tmp_path / "second").mkdir()
    with (
        a_server(state, tmp_path) as first,
        a_server(state, tmp_path / "second") as second,
    ):
        run(whole(first, second))


def act(server: BenchServer, token: str, method: str, path: str, body: object = None) -> httpx.Response:
    """One call; every state-changing call of a test to one path has the same key."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"key-{path}"}
    return httpx.request(method, http_base(server) + path, headers=headers, json=body or {}, timeout=10)


def refused_backup(server: BenchServer, folder: Path) -> str:
    """What `server backup` says."""
    try:
        server.admin("backup", str(folder / "nothing.backup"))
    except Exception as error:  # noqa: BLE001 - its sentence is judged by the caller
        return str(error)
    return ""


def test_whatever_becomes_of_the_database_every_order_is_answered_once_and_none_is_lost(
    postgres: PrivatePostgres, state: Path, tmp_path: Path
) -> None:
    outages = [postgres.kill, postgres.stop, lambda: postgres.cut_sessions("copy")]
    assert len(outages) == OUTAGES

    async def whole(server: BenchServer) -> None:
        guests = [Guest(await online(server, number)) for number in (1, 2)]
        for outage in outages:
            load = [asyncio.create_task(ordering(server, guest)) for guest in guests]
            await asyncio.sleep(LOAD_S)
            outage()
            if outage != outages[-1]:
                postgres.start()  # from this thread: it ends with the thread that started it
            before = [len(guest.answers) for guest in guests]
            await soon(
                lambda before=before: all(
                    len(guest.answers) > count for guest, count in zip(guests, before, strict=True)
                ),
                "orders are answered again",
            )
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
        for number, guest in enumerate(guests, 1):
            await settle(server, number, guest)
        judge(server, guests)

    with a_server(state, tmp_path) as server:
        run(whole(server))


async def ordering(server: BenchServer, guest: Guest) -> None:
    """Order without end, over every lost connection."""
    number = int(guest.terminal.device[-1])
    while True:
        with suppress(LinkError, OSError, TimeoutError, asyncio.TimeoutError):
            await guest.order_until_the_connection_ends(8)
        await asyncio.sleep(0.05)
        with suppress(LinkError, OSError, TimeoutError, StorageError):
            fresh = await online(server, number)
            fresh.on_reply = guest.take
            guest.terminal = fresh


async def settle(server: BenchServer, number: int, guest: Guest) -> None:
    """Resend what is open until everything is answered."""
    fresh = await online(server, number)
    fresh.on_reply = guest.take
    guest.terminal = fresh
    for op in list(guest.journal.values()):
        fresh.send(op)
    await soon(lambda: not guest.journal, "everything sent is answered")


def judge(server: BenchServer, guests: list[Guest]) -> None:
    """What was answered is stored, what is stored happened once."""
    ledger = server.ledger
    answers = {(one.device, one.op_id): one for one in ledger.answers(SITE)}
    orders = ledger.orders(SITE)
    assert len({order.op_id for order in orders}) == len(orders) > 0
    assert [answer.lsn for answer in answers.values()] == list(range(1, len(answers) + 1))
    for guest in guests:
        assert guest.changed_answers == 0
        assert set(guest.answers) == set(guest.sent)
        for op_id, reply in guest.answers.items():
            stored = answers[guest.terminal.device, op_id]
            assert (stored.status, stored.lsn, stored.total_minor) == (
                reply.status, reply.lsn, reply.total_minor,
            )  # fmt: skip


def test_a_database_nobody_answers_for_is_said_at_the_start(tmp_path: Path, start_and_fail: Failing) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://{NAME}:hidden-word@127.0.0.1:{free.getsockname()[1]}/{NAME}"
        sentence = start_and_fail(tmp_path / "state", "--database", url)
        with pytest.raises(Unreachable) as unreachable:
            open_database(tmp_path, url=url)
    assert "nothing answers" in sentence
    assert "hidden-word" not in sentence + repr(unreachable.value)
    assert unreachable.value.code == "DATABASE_UNREACHABLE"
    assert not (tmp_path / "state" / URL_NAME).exists(), "a wrong URL is not remembered"


def test_a_wrong_password_is_said_at_the_start_without_repeating_it(
    postgres: PrivatePostgres, tmp_path: Path, start_and_fail: Failing
) -> None:
    url = postgres.url_of(NAME, "wrong-word")
    sentence = start_and_fail(tmp_path / "state", "--database", url)
    with pytest.raises(LoginRefused) as refused:
        open_database(tmp_path, url=url)
    assert "does not let this user in" in sentence
    assert "wrong-word" not in sentence + repr(refused.value)
    assert refused.value.code == "DATABASE_LOGIN"
    assert "wrong-word" not in repr(ServerConfig(database=url))


def test_a_database_that_was_never_made_and_a_url_that_is_none_are_said(
    postgres: PrivatePostgres, tmp_path: Path, start_and_fail: Failing
) -> None:
    assert "createdb" in start_and_fail(tmp_path / "a", "--database", postgres.url_of("nowhere"))
    assert "postgresql://USER" in start_and_fail(tmp_path / "b", "--database", "mysql://x")
    broken = start_and_fail(tmp_path / "c", "--database", "postgresql://x:se cret%zz@[::1/y")
    assert "cret" not in broken


def test_a_url_is_read_from_a_file_and_a_folder_with_a_database_of_its_own_is_refused(
    postgres: PrivatePostgres, tmp_path: Path, start_and_fail: Failing
) -> None:
    (tmp_path / "url").write_text(postgres.url_of("nowhere") + "\n")
    assert "there is no database" in start_and_fail(tmp_path / "a", "--database", f"@{tmp_path / 'url'}")
    open_database(tmp_path, create=True).close()
    assert "has a database of its own" in start_and_fail(tmp_path, "--database", postgres.url)


def test_a_folder_with_other_keys_is_turned_away(
    state: Path, tmp_path: Path, start_and_fail: Failing
) -> None:
    url = (state / URL_NAME).read_text()
    sentence = start_and_fail(tmp_path / "stranger", "--database", url, keys=False)
    assert "is not signed by this server's key" in sentence
    assert Ledger(state).order_count(SITE) == 0


def test_a_restored_dump_goes_on_above_what_was_said_since(
    postgres: PrivatePostgres, state: Path, tmp_path: Path
) -> None:
    said: list[int] = []

    async def one_order(server: BenchServer) -> None:
        device = await online(server)
        reply = await device.order(device.make_op(COFFEE, COFFEE_MINOR))
        assert reply.status == Status.COMMITTED
        said.append(reply.lsn)

    dump, restored = tmp_path / "monday.dump", tmp_path / "other" / "restored"
    with a_server(state, tmp_path) as server:
        run(one_order(server))
        url = (state / URL_NAME).read_text()
        subprocess.run([PROGRAMS / "pg_dump", "--format=custom", "--file", dump, url], check=True)
        run(one_order(server))
    fresh = postgres.make_database("restored")
    subprocess.run([PROGRAMS / "pg_restore", "--dbname", fresh, dump], check=True)
    shutil.copytree(state / "keys", restored / "keys")
    assert cli.main(["after-restore", "--state", str(restored), "--database", fresh]) == 0
    (tmp_path / "after").mkdir()
    with a_server(restored, tmp_path / "after") as server:
        run(one_order(server))
    assert said[0] < said[1] < LSN_LEAP < said[2]
    postgres.drop_database("restored")
