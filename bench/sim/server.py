"""The order server on a simulated machine: the real ``OrderServer`` with virtual time, network and disk.

Worker threads do not exist here: what the server hands to them runs at once, on the loop. The writer's
batches run at a later moment of virtual time, and their outcomes are delivered after a simulated fsync.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from bench.sim.clock import Machine, WallClock
from bench.sim.dbapi import Connections, SimConnection
from bench.sim.disk import Disk
from bench.sim.network import Network, ServerWriter
from bench.sim.randomness import Seeded
from server.app import OrderServer
from server.config import ServerConfig
from server.platform import Platform
from server.storage import writer as storage_writer
from server.storage.database import Database, open_database
from server.storage.writer import Outcome, QueueFull, Writer
from server.transport.broker import DeviceBroker

T = TypeVar("T")
OnPublishSeen = Callable[[str, str, bytes, Callable[[bool], None]], Callable[[bool], None]]


class InlineExecutor(Executor):
    """Runs what it is given at once, in the caller."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run now; the future is done when it is returned."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands every failure to its caller
            future.set_exception(error)
        return future


class InlineWriter(Writer):
    """The real writer without its thread: a batch is taken at a later moment of virtual time.

    Overrides only when things happen; what a batch does is the real code.
    """

    random: Seeded
    machine: Machine

    def start(self) -> None:
        """Open the connection."""
        self._connection = self._database.driver_connection()
        self._scheduled = False

    def submit(self, job: Callable[[sqlite3.Connection], T], callback: Callable[[Outcome[T]], None]) -> None:
        """Queue a job. Raises: QueueFull."""
        super().submit(job, callback)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(0.0002 + 0.002 * self.random.draw.random(), self._turn)

    def run_from_thread(self, job: Callable[[sqlite3.Connection], T], timeout_s: float) -> T:
        """Run a job in a batch of its own, now."""
        entry = storage_writer.Entry(job, lambda outcome: None)
        self._commit(self._connection, [entry])
        if entry.outcome.error is not None:
            raise entry.outcome.error
        value: T = entry.outcome.value  # type: ignore[assignment]
        return value

    def stop(self) -> None:
        """Finish what is queued and close."""
        while self.machine.alive and self.depth:
            batch, _ = self._take()
            self._commit(self._connection, batch)
            self._settle(batch)
        self._connection.close()

    def _turn(self) -> None:
        self._scheduled = False
        if not self.machine.alive or not self.depth:
            return
        batch, _ = self._take()
        self._commit(self._connection, batch)
        self._loop.call_later(0.0002 + 0.003 * self.random.draw.random(), self._answer, batch)
        if self.depth:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _answer(self, batch: list[Any]) -> None:
        if self.machine.alive:
            self._settle(batch)


class InlineBroker(DeviceBroker):
    """The real broker behind the simulated network's listener."""

    network: Network
    machine: Machine
    seen: OnPublishSeen | None = None
    sent: Callable[[str, bytes], None] | None = None

    async def start(self) -> None:
        """Listen on the simulated network."""
        self._up = True
        if self.seen is not None:
            self.ingest = self._watched
        self.network.accept = self._accept
        self._sweeper = asyncio.create_task(self._sweep())

    async def shutdown(self) -> None:
        """Close the listener and every connection."""
        self._up = False
        self.network.accept = None
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    @property
    def listening(self) -> bool:
        """Whether terminals can connect."""
        return getattr(self, "_up", False)

    @property
    def address(self) -> tuple[str, int]:
        """A name nobody resolves."""
        return "sim", 1

    def send(self, device: str, topic: str, payload: bytes) -> bool:
        """As the real one, and the observer sees it."""
        if self.sent is not None and self.machine.alive:
            self.sent(device, payload if topic.endswith("/reply") else b"")
        return super().send(device, topic, payload)

    def forget_sessions(self) -> None:
        """An amnesia: every connection ends, and no session is remembered."""
        for device in sorted(self._connections):
            self._connections[device].abort(dead=True)
        self._client_sessions.clear()
        self._missed_since.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: ServerWriter) -> None:
        self.machine.run(self.stream_connected(reader, writer, "sim"))  # type: ignore[arg-type]

    def _watched(self, device: str, kind: str, payload: bytes, done: Callable[[bool], None]) -> None:
        assert self.seen is not None
        self._on_publish(device, kind, payload, self.seen(device, kind, payload, done))

    @property
    def ingest(self) -> Any:
        """Where published frames go."""
        return self._ingest

    @ingest.setter
    def ingest(self, target: Any) -> None:
        if target != self._watched:
            self._on_publish = target
        self._ingest = target


class SimServer:
    """One start of the server, from power on to the end of its machine."""

    def __init__(
        self,
        number: int,
        folder: Path,
        network: Network,
        clock: WallClock,
        random: Seeded,
        config: dict[str, Any],
    ) -> None:
        self.machine = Machine(f"server-{number}")
        self.state = folder / f"server-{number}"
        self.state.mkdir(parents=True, mode=0o700)
        self.random = random.fork(f"server-{number}")
        self.disk = Disk(self.state)
        self.connections = Connections(self.disk.vfs_name)
        self.network = network
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self._config = config
        self._office: Database | None = None
        self.server: OrderServer | None = None
        self.broker: InlineBroker | None = None
        self.seen: OnPublishSeen | None = None
        self.sent: Callable[[str, bytes], None] | None = None

    def inherit(self, keys: Path, files: dict[str, bytes]) -> None:
        """What is on the disk before the machine is switched on."""
        shutil.copytree(keys, self.state / "keys")
        (self.state / "keys").chmod(0o700)
        self.disk.load(files)

    async def start(self) -> None:
        """Switch on; returns when terminals can connect."""
        parts = {"machine": self.machine, "random": self.random, "network": self.network}
        writer = type("Writer", (InlineWriter,), parts)
        watch = {"seen": staticmethod(self.seen) if self.seen else None,
                 "sent": staticmethod(self.sent) if self.sent else None}  # fmt: skip
        broker = type("Broker", (InlineBroker,), parts | watch)
        platform = Platform(
            self.clock, self.random, self.loop.time, InlineExecutor, self.connections, writer, broker
        )
        self.server = OrderServer(ServerConfig(state=self.state, **self._config), platform)
        await self.machine.run(self.server.start())
        self.broker = cast(InlineBroker, self.server._broker)

    def office(self) -> Database:
        """Another program's connection to the same database, as the command line has it."""
        if self._office is None:
            self._office = open_database(self.state, connect=self.connections)
        return self._office

    def reader(self) -> SimConnection:
        """A connection that only reads what is committed."""
        connection = self.connections(self.state / "tableside.db")
        assert isinstance(connection, SimConnection)
        return connection

    def cut(self) -> dict[str, bytes]:
        """The power fails now. Returns the database files as the platter has them."""
        self.machine.alive = False
        self.disk.freeze()
        self.network.cut_server()
        return self.disk.survivors(self.random)

    async def bury(self) -> None:
        """Clear away what is left in this process after ``cut``."""
        await self.machine.bury()
        self._release()

    async def stop(self) -> None:
        """Shut down in an orderly way."""
        if self.server is not None:
            await self.machine.run(self.server.stop())
        self.machine.alive = False
        await self.machine.bury()
        self._release()

    def _release(self) -> None:
        if self._office is not None:
            self._office.close()
        if self.server is not None:
            self.server._lock.release()
        with suppress(sqlite3.Error):
            self.connections.close()
        self.disk.close()


__all__ = ["InlineBroker", "InlineExecutor", "InlineWriter", "QueueFull", "SimServer"]
