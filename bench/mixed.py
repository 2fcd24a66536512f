"""Several servers' writers on one PostgreSQL database, everything at once: is there ever a deadlock, and do
the books balance afterwards?

Each server here is what a server process has for this: a writer with its own connection, its own catalogue,
its own service. Guests order, change and cancel, and send some ops to two servers at the same time; staff
seat, move, bill and pay at every server; the office publishes menus; observations are stored all the while.
PostgreSQL counts its deadlocks itself; the history is judged by ``bench.history``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from bench import staff
from bench.history import check
from bench.history.events import Acted, History, Replied, Reply, Restocked, Submitted, Violation
from bench.history.read import read_books
from bench.paths import FIXTURE_KEYS
from bench.postgres import PrivatePostgres
from bench.sim.house import COUNTED, demo_menu, order_lines, prices
from bench.sim.randomness import Seeded
from server.devices.keys import KeyStore
from server.devices.records import DeviceState
from server.devices.seams import SystemClock
from server.domain.errors import HouseError
from server.ordering.apply import Answered, ApplyOp
from server.ordering.catalogue import Catalogue
from server.ordering.menu_prices import read_signed_prices
from server.ordering.together import OrderGroups
from server.service.service import Service
from server.storage import admin
from server.storage.database import open_database
from server.storage.postgres import PostgresDatabase, PostgresReader
from server.storage.postgres_writer import PostgresWriter
from server.storage.registry import StoreObservations
from server.wire.ops import Line, Op, OpType
from server.wire.requests import Cancel, Change
from server.wire.rsa import VerifyKey

SITE = "demo"
TABLES = tuple(str(number) for number in range(1, 13))
DEVICES = {f"t-{number:04}": table for number, table in enumerate(TABLES, 1)}
STOCK = 1_000_000
OBSERVE_S, PUBLISH_S, STAFF_S = 0.2, 1.0, 0.01
IN_FLIGHT = 4  # per terminal
DEADLOCK_TIMEOUT = "100ms"


@dataclass(slots=True)
class Result:
    """What a mixed load came to; ``deadlocks`` as PostgreSQL counted them."""

    seed: int
    servers: int
    seconds: float = 0.0
    ops: int = 0
    committed: int = 0
    sent_twice: int = 0
    staff: int = 0
    menus: int = 0
    batches: int = 0
    deadlocks: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """No deadlock, no failure, no broken promise."""
        return not (self.deadlocks or self.failures or self.violations)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"schema": "tableside.mixed/1", **asdict(self)}


class _Server:
    """What one server process has on the database."""

    def __init__(self, url: str, folder: Path, keys: KeyStore) -> None:
        database = open_database(folder, url=url)
        assert isinstance(database, PostgresDatabase)
        self.database = database
        key = VerifyKey(keys.server_sign.spki, 3072)
        self.catalogue = Catalogue(SITE, lambda frame: read_signed_prices(frame, key, SITE))
        self.writer = PostgresWriter(
            database, asyncio.get_running_loop(), groups=OrderGroups(), on_revision=self.catalogue.reload
        )
        self.service = Service(self.catalogue, SystemClock())
        self.writer.start()

    def close(self) -> None:
        """Finish what is queued and let go."""
        self.writer.stop()
        self.database.close()


class _Load:
    """The people of one run."""

    def __init__(self, servers: Sequence[_Server], keys: KeyStore, seed: int, result: Result) -> None:
        self._servers = servers
        self._keys = keys
        self._seed = seed
        self._result = result
        self._menu = demo_menu()
        self.menus = {self._menu.version: prices(self._menu)}
        self.submitted: list[Submitted] = []
        self.replied: list[Replied] = []
        self.acted: list[Acted] = []
        self.failures: Counter[str] = Counter()
        self._kinds = (90, 6, 4)  # orders, changes, cancels
        self._stopping = asyncio.Event()

    async def run(self, budget_s: float, say: Callable[[str], None], *, orders_only: bool) -> None:
        """Everything at once until the budget is used up, then until all is answered."""
        people = [self._guest(device, n) for device in DEVICES for n in range(IN_FLIGHT)]
        if not orders_only:
            people += [self._waiter(n) for n in range(len(self._servers))]
            people += [self._observe(n) for n in range(len(self._servers))]
            people.append(self._office())
        self._kinds = (1, 0, 0) if orders_only else (90, 6, 4)
        tasks = [asyncio.create_task(one) for one in people]
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < budget_s and not any(task.done() for task in tasks):
            await asyncio.sleep(min(5.0, budget_s - passed))
            say(f"{time.monotonic() - begun:6.0f} s  {len(self.submitted)} ops, {len(self.acted)} by staff")
        self._result.seconds = round(time.monotonic() - begun, 3)
        self._stopping.set()
        await asyncio.gather(*tasks)

    async def _pause(self, seconds: float) -> None:
        if not self._stopping.is_set():
            await asyncio.sleep(seconds)

    async def _guest(self, device: str, number: int) -> None:
        random = Seeded(self._seed, f"{device}/{number}")
        ordered: list[bytes] = []
        count = 0
        while not self._stopping.is_set():
            count += 1
            op_id = bytes((number,)) + device.encode()[-4:] + count.to_bytes(7, "big")
            kind = random.draw.choices(("order", "change", "cancel"), self._kinds)[0] if ordered else "order"
            target = random.draw.choice(ordered) if kind != "order" else b""
            await self._send(random, device, op_id, kind, target)
            if kind == "order":
                ordered = [*ordered[-3:], op_id]

    async def _send(self, random: Seeded, device: str, op_id: bytes, kind: str, target: bytes) -> None:
        version = max(self.menus)
        chosen = [] if kind == "cancel" else order_lines(self._menu, random)
        wanted = tuple((item, quantity, tuple(modifiers)) for item, quantity, modifiers in chosen)
        total = self.menus[version].total_minor(wanted)
        assert total is not None
        lines = tuple(Line(*line) for line in wanted)
        bodies = {"order": None, "change": Change(target), "cancel": Cancel(target, 1)}
        types = {"order": OpType.ORDER, "change": OpType.CHANGE, "cancel": OpType.CANCEL}
        op = Op(types[kind], op_id, DEVICES[device], lines, version, total, None, bodies[kind])
        at_s = time.monotonic()
        self.submitted.append(
            Submitted(at_s, device, op_id, op.table, version, total, wanted, True, kind, target)
        )
        takers = random.draw.sample(list(self._servers), 2 if random.chance(0.05) else 1)
        self._result.sent_twice += len(takers) > 1
        await asyncio.gather(*(self._answer(server, device, op) for server in takers))

    async def _answer(self, server: _Server, device: str, op: Op) -> None:
        data = op.encode()
        job = ApplyOp(
            server.catalogue, device, device.encode()[-4:], op, sha256(data).digest(), int(time.time()), data
        )
        try:
            answered: Answered = await server.writer.run(job)
        except Exception as error:  # noqa: BLE001 - every kind of failure is counted and fails the run
            self.failures[f"{type(error).__name__}: {error}"] += 1
            return
        said = answered.reply
        reply = Reply(said.status, said.arg, said.order_number, said.total_minor, said.lsn, said.chain)
        self.replied.append(Replied(time.monotonic(), device, op.op_id, reply))

    async def _waiter(self, number: int) -> None:
        server, loop = self._servers[number], asyncio.get_running_loop()
        person = staff.Staff(Seeded(self._seed, f"staff-{number}").draw, 2_000_000_000, COUNTED)
        with closing(PostgresReader(server.database.url)) as reader:
            while not self._stopping.is_set():
                seen = await loop.run_in_executor(None, _look, reader)
                action = person.decide(seen)
                if action is not None:
                    await self._act(server, f"waiter-{number}", action)
                await self._pause(STAFF_S)

    async def _act(self, server: _Server, author: str, action: staff.Action) -> None:
        at_s = time.monotonic()
        try:
            result = await server.writer.run(staff.job(server.service, author, action))
        except HouseError as error:
            done_s = time.monotonic()
            self.acted.append(Acted(at_s, done_s, action.kind, action.args, code=str(error.code)))
        except Exception as error:  # noqa: BLE001 - every kind of failure is counted and fails the run
            self.failures[f"{type(error).__name__}: {error}"] += 1
        else:
            done_s = time.monotonic()
            acted = Acted(at_s, done_s, action.kind, action.args, lsn=int(result["lsn"]), result=result)
            self.acted.append(acted)

    async def _observe(self, number: int) -> None:
        """Counters that every server adds to: the same rows, in another order on each."""
        codes = ["bad_mac", "queue_full", "stale_handshake", "unknown_session"]
        Seeded(self._seed, f"observe-{number}").draw.shuffle(codes)
        while not self._stopping.is_set():
            counts = {("", code): 1 for code in codes}
            job = StoreObservations(SITE, counts, {}, {}, {}, int(time.time()))
            try:
                await self._servers[number].writer.run(job)
            except Exception as error:  # noqa: BLE001 - every kind of failure is counted and fails the run
                self.failures[f"{type(error).__name__}: {error}"] += 1
            await self._pause(OBSERVE_S)

    async def _office(self) -> None:
        """A new menu with the same prices, from a connection of its own."""
        loop, database = asyncio.get_running_loop(), self._servers[0].database
        while not self._stopping.is_set():
            await self._pause(PUBLISH_S)
            menu = replace(self._menu, version=max(self.menus) + 1)
            frame = await loop.run_in_executor(None, menu.seal, self._keys.server_sign, SITE)
            now_s = int(time.time())
            await loop.run_in_executor(None, admin.publish_menu, database, SITE, menu.version, frame, now_s)
            self.menus[menu.version] = prices(menu)
            self._result.menus += 1


def _look(reader: PostgresReader) -> staff.Glimpse:
    with reader.snapshot() as transaction:
        return staff.look(transaction.execute, TABLES)


def _furnish(url: str, folder: Path, keys: KeyStore) -> None:
    """Tables, terminals with a session each, the menu, and stock that lasts."""
    now_s = int(time.time())
    with closing(open_database(folder, create=True, url=url)) as database:
        admin.ensure_site(database, SITE)
        menu = demo_menu()
        admin.publish_menu(database, SITE, menu.version, menu.seal(keys.server_sign, SITE), now_s)
        for item in COUNTED:
            admin.set_stock(database, SITE, item, STOCK)
        for device, table in DEVICES.items():
            admin.add_device(
                database, SITE, device, table=table, spki=device.encode(), password_hash="",
                state=DeviceState.ACTIVE, now_s=now_s,
            )  # fmt: skip
        with closing(database.driver_connection()) as connection:
            connection.executemany(
                "INSERT INTO session (site, device, sid, k_d2s, k_s2d, k_resume, th8, created_at, "
                "expires_at, hello_hash, accept, handshake) VALUES (?,?,?,?,?,?,?,?,?,?,?,1)",
                [
                    (SITE, device, device.encode()[-4:], b"", b"", b"", b"", now_s, now_s + 86_400, b"", b"")
                    for device in DEVICES
                ],
            )


async def _play(
    url: str, folder: Path, result: Result, budget_s: float, say: Callable[[str], None], *, orders_only: bool
) -> _Load:
    keys = KeyStore(folder / "keys", SITE)
    servers = [_Server(url, folder, keys) for _ in range(result.servers)]
    load = _Load(servers, keys, result.seed, result)
    try:
        await load.run(budget_s, say, orders_only=orders_only)
    finally:
        for server in servers:
            await asyncio.get_running_loop().run_in_executor(None, server.close)
    result.batches = sum(server.writer.stats.batches for server in servers)
    return load


def _judged(url: str, load: _Load) -> list[Violation]:
    history = History(
        submitted=load.submitted, replied=load.replied, acted=load.acted, menus=load.menus,
        honest=False,  # a menu may be replaced while an order that names it is on its way
    )  # fmt: skip
    with closing(PostgresReader(url)) as reader, reader.snapshot() as transaction:
        history.restocked = [Restocked(0, item, STOCK) for item in COUNTED]
        read_books(transaction.execute, history)
    return check.check(history)


def deadlocks(url: str) -> int:
    """How many deadlocks PostgreSQL has resolved in this database."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    return int(row[0]) if row is not None else 0


def run(
    budget_s: float,
    servers: int = 3,
    seed: int = 1,
    say: Callable[[str], None] = lambda _text: None,
    *,
    orders_only: bool = False,
) -> Result:
    """Play for ``budget_s`` on a private PostgreSQL and judge.

    ``orders_only``: nothing that has the house to itself, so that the servers' orders meet as often as they
    can. Raises: BenchError without PostgreSQL.
    """
    result = Result(seed, servers)
    server = PrivatePostgres(settings={"deadlock_timeout": DEADLOCK_TIMEOUT})
    with server as url, TemporaryDirectory() as name:
        folder = Path(name)
        store, _ = KeyStore.open_or_create(folder / "keys", SITE, FIXTURE_KEYS / "root.pem", int(time.time()))
        _furnish(url, folder, store)
        load = asyncio.run(_play(url, folder, result, budget_s, say, orders_only=orders_only))
        result.deadlocks = deadlocks(url)
        say("judging the history")
        found = _judged(url, load)
    result.ops = len(load.submitted)
    result.staff = len(load.acted)
    result.committed = sum(1 for seen in load.replied if seen.reply.status == 0)
    result.failures = dict(load.failures)
    result.violations = [f"{one.code}: {one.text}" for one in found]
    return result
