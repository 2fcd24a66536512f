"""The server's composition root: every part is made here, given what it needs, started and stopped in
order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from server.config import KEYS_NAME, ConfigError, ServerConfig
from server.devices.beacons import Beacons
from server.devices.handshake import Handshake
from server.devices.keys import KeyStore
from server.devices.records import DeviceState, IssuedBeacon, MenuReference
from server.devices.verify import OpVerifier, Session
from server.ordering.catalogue import Catalogue
from server.ordering.menu_prices import read_signed_prices
from server.platform import Platform
from server.releases.bundle import open_bundle
from server.releases.serving import Releases
from server.storage import admin, release_reads, update_commands
from server.storage.database import Database, StorageError, open_database
from server.storage.lock import StateLock
from server.storage.registry import StoreBeacon, load_beacons, load_sessions
from server.storage.retention import BATCH, DAY_S, PruneAnswers
from server.storage.schema import SCHEMA_VERSION
from server.storage.writer import QueueFull, Writer
from server.transport.auth import Authenticator
from server.transport.handshakes import Handshakes
from server.transport.ingest import Ingest
from server.transport.limits import RateLimiter
from server.transport.notices import Notices
from server.transport.observations import Observations
from server.transport.seams import MessageBroker
from server.transport.updates import SiteReleases, Updates
from server.wire.errors import Refusal
from server.wire.menufile import parse_menu
from server.wire.menus import split
from server.wire.rsa import VerifyKey

if TYPE_CHECKING:
    from server.web.compose import HttpSide

TICK_S = 0.2
FIRST_PRUNING_S = 5.0
PRUNING_S = 60.0
BACKLOG_PRUNING_S = 1.0
BEACON_STORE_TIMEOUT_S = 30.0
ADDRESS_NAME = "server.json"

_log = logging.getLogger("tableside.server")


@dataclass(slots=True)
class _BeaconLog:
    """Beacons in the database; ``append`` blocks its (worker) thread until the commit."""

    site: str
    known: list[IssuedBeacon]
    writer: Writer

    def load(self) -> Iterable[IssuedBeacon]:
        return self.known

    def append(self, beacon: IssuedBeacon) -> Iterable[IssuedBeacon] | None:
        return self.writer.run_from_thread(StoreBeacon(self.site, beacon), BEACON_STORE_TIMEOUT_S)


class OrderServer:
    """One site's order server: ``start``, then ``stop``. ``said`` holds the sentences a first start tells
    its user.

    Raises (from ``start``): ConfigError, StorageError, KeyFileError, ListenError, each with a sentence for
    the user.
    """

    def __init__(self, config: ServerConfig, platform: Platform | None = None) -> None:
        self.config = config
        self.said: list[str] = []
        self.observations = Observations(config.site)
        self._platform = platform or Platform()
        self._clock = self._platform.clock
        self._entropy = self._platform.entropy
        self._lock = StateLock(config.state)
        self._executor = self._platform.executor()
        self._sessions: dict[str, Session] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._beacon_due = asyncio.Event()
        self._releases_due = asyncio.Event()
        self._on_offer: release_reads.OnOffer | None = None
        self._published_menu = 0
        self._database: Database | None = None
        self._writer: Writer | None = None
        self._broker: MessageBroker | None = None
        self._http: HttpSide | None = None

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of the HTTP API, None where it is switched off."""
        return None if self._http is None else self._http.address

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the broker."""
        return self._need_broker().address

    async def start(self) -> None:
        """Bring everything up; when this returns, terminals can connect and a beacon is out."""
        loop = asyncio.get_running_loop()
        try:
            self._make_state_folder()
            self._lock.acquire()
            self._keystore = await loop.run_in_executor(self._executor, self._open_keys)
            self._database = await loop.run_in_executor(self._executor, self._open_database, self._keystore)
            self._compose(loop, self._database)
            await self._need_broker().start()
            await self._publish_menu()
            await self._publish_beacon()
            await self._load_releases()
            await self._start_http()
            self._write_address()
        except BaseException:
            await self.stop()
            raise
        self._tasks = [
            asyncio.create_task(self._beacon_loop()),
            asyncio.create_task(self._release_loop()),
            asyncio.create_task(self._tick_loop()),
            asyncio.create_task(self._prune_loop()),
        ]

    async def stop(self) -> None:
        """Stop taking messages, finish what was queued, close the database. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._http is not None:
            await self._http.stop()
            self._http = None
        if self._broker is not None and self._broker.listening:
            await self._broker.shutdown()
        self._broker = None
        if self._writer is not None:
            with contextlib.suppress(StorageError, QueueFull):
                await self._flush_observations()
            await asyncio.get_running_loop().run_in_executor(self._executor, self._writer.stop)
            self._writer = None
        self._executor.shutdown(wait=True)
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    def _make_state_folder(self) -> None:
        try:
            self.config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(
                f"cannot make the state folder {self.config.state} ({error.strerror}); choose another with "
                f"--state"
            ) from error

    def _open_keys(self) -> KeyStore:
        path = self.config.state / KEYS_NAME
        if not path.exists() and not self.config.root_key.exists():
            raise ConfigError(
                f"there is no root key {self.config.root_key}; name the site's with --root-key FILE"
            )
        now = self._clock.unix_time()
        store, fresh = KeyStore.open_or_create(path, self.config.site, self.config.root_key, now)
        if fresh:
            self.said.append(f"made the server's keys in {path}, certified by {self.config.root_key.name}")
        store.current_decrypt(now)
        return store

    def _open_database(self, keystore: KeyStore) -> Database:
        config = self.config
        database = open_database(
            config.state, create=True, upgrade=True, connect=self._platform.connect, url=config.database
        )
        site = config.site
        try:
            admin.ensure_site(database, site)
            if database.made:
                self.said.append(f"made the database {database.name}")
            if database.upgraded_from is not None:
                self.said.append(
                    f"upgraded the database from schema version {database.upgraded_from} to {SCHEMA_VERSION}"
                )
            if admin.newest_menu_version(database, site) == 0 and self.config.demo_menu.exists():
                menu = parse_menu(self.config.demo_menu.read_text("utf-8"))
                frame = menu.seal(keystore.server_sign, site)
                admin.publish_menu(database, site, menu.version, frame, self._clock.unix_time())
                self.said.append(
                    f"published the demo menu, version {menu.version} with {len(menu.items)} items"
                )
        except BaseException:
            database.close()
            raise
        return database

    def _compose(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        config = self.config
        site = config.site
        key = VerifyKey(self._keystore.server_sign.spki, 3072)
        self._catalogue = Catalogue(site, lambda frame: read_signed_prices(frame, key, site))
        with contextlib.closing(database.driver_connection()) as connection:
            self._first_load(connection, database)
            beacons = load_beacons(connection, site)
            self._sessions.update({row.device: Session(row) for row in load_sessions(connection, site)})
        self._writer = self._platform.writer_for(database)(
            database,
            loop,
            capacity=config.queue_capacity,
            max_batch=config.max_batch,
            on_revision=lambda connection: self._reload(connection, loop),
        )
        self._writer.start()
        beacon_log = _BeaconLog(site, beacons, self._writer)
        self._beacons = Beacons(site, self._keystore, beacon_log, self._clock, self._entropy)
        limiter = RateLimiter(config.limits, self._platform.monotonic)
        self.notices = Notices(self._catalogue, self._sessions, self._clock, self._send)
        handshakes = Handshakes(
            Handshake(
                self._keystore,
                self._beacons,
                self._clock,
                self._entropy,
                window=config.window,
                ttl_s=config.session_ttl_s,
            ),
            self._catalogue,
            self._writer,
            limiter,
            self.observations,
            self._executor,
            self._sessions,
            lambda device, payload: self._send(device, "hello", payload),
            self.notices,
        )
        self._updates = Updates(
            site, self._send, limiter, self.observations, self._sessions, self._platform.monotonic
        )
        self._ingest = ingest = Ingest(
            catalogue=self._catalogue,
            verifier=OpVerifier(self._clock),
            sessions=self._sessions,
            writer=self._writer,
            limiter=limiter,
            observations=self.observations,
            handshakes=handshakes,
            clock=self._clock,
            send=self._send,
            updates=self._updates,
            notices=self.notices,
        )
        self._broker = self._make_broker(ingest, limiter)

    def _make_broker(self, ingest: Ingest, limiter: RateLimiter) -> MessageBroker:
        config = self.config
        if config.broker is not None:
            from server.transport.external import ExternalBroker

            return ExternalBroker(
                site=config.site,
                login=config.broker,
                known=lambda device: device in self._catalogue.snapshot.devices,
                on_publish=ingest,
                refuse=self.observations.refuse,
            )
        return self._platform.broker(
            site=config.site,
            host=config.mqtt_host,
            port=config.mqtt_port,
            authenticate=Authenticator(self._catalogue, limiter, self._executor),
            on_publish=ingest,
            refuse=self.observations.refuse,
        )

    async def _start_http(self) -> None:
        """Serve the HTTP API, unless it is switched off; its modules take long to import."""
        if self.config.http is None:
            return
        assert self._database is not None
        assert self._writer is not None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, import_module, "server.web.compose")
        from server.web.compose import HttpSide, Parts

        parts = Parts(
            self.config,
            self._clock,
            self._database,
            self._catalogue,
            self._keystore,
            self._writer,
            self._ingest,
            self._sessions,
            self.observations,
            self._need_broker(),
            self.notices,
            self._updates,
        )
        self._http = HttpSide(parts)
        await self._http.start()

    def _first_load(self, connection: sqlite3.Connection, database: Database) -> None:
        try:
            self._catalogue.reload(connection)
        except Refusal as refusal:
            raise StorageError(
                f"the current menu in {database.name} is not signed by this server's key ({refusal.detail}); "
                f"run `tableside server keys rotate` again if a rotation was interrupted, else restore keys "
                f"and database from the same backup"
            ) from refusal

    def _reload(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        """In the writer's thread: read the registry again, then tell the loop."""
        try:
            self._catalogue.reload(connection)
        except Refusal as refusal:
            _log.error("the newly published menu was not taken: %s", refusal)
            return
        if self._http is not None:
            self._http.reload(connection)
        loop.call_soon_threadsafe(self._changed)

    def _changed(self) -> None:
        """On the loop: devices or menus changed."""
        broker = self._broker
        if broker is None:
            return
        snapshot = self._catalogue.snapshot
        for device in sorted({*self._sessions, *broker.connected()}):
            known = snapshot.devices.get(device)
            if known is None or known.state is not DeviceState.ACTIVE:
                self._sessions.pop(device, None)
                broker.disconnect(device)
        if snapshot.current is not None and snapshot.current.version != self._published_menu:
            self._beacon_due.set()
        self._releases_due.set()

    def _send(self, device: str, tail: str, payload: bytes) -> None:
        if self._broker is not None:
            self._broker.send(device, f"d/{self.config.site}/{device}/{tail}", payload)

    async def _publish_menu(self) -> None:
        """Publish the current menu's chunks, retained, and forget those a shorter menu no longer has."""
        assert self._database is not None
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(
            self._executor, admin.current_menu, self._database, self.config.site
        )
        if stored is None:
            return
        broker = self._need_broker()
        chunks = split(stored.frame, stored.version)
        for chunk in chunks:
            broker.publish_retained(f"s/{self.config.site}/menu/{chunk.index}", chunk.encode())
        broker.forget_retained_from(f"s/{self.config.site}/menu/", len(chunks))
        self._published_menu = stored.version

    async def _publish_beacon(self) -> None:
        current = self._catalogue.snapshot.current
        if current is None:
            return
        reference = MenuReference(current.version, current.hash)
        loop = asyncio.get_running_loop()
        frame = await loop.run_in_executor(self._executor, self._beacons.issue, reference)
        self._need_broker().publish_retained(f"s/{self.config.site}/beacon", frame)

    async def _beacon_loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._beacon_due.wait(), self.config.beacon_interval_s)
            self._beacon_due.clear()
            try:
                current = self._catalogue.snapshot.current
                if current is not None and current.version != self._published_menu:
                    await self._publish_menu()
                await self._publish_beacon()
            except (StorageError, QueueFull, OSError) as error:
                _log.error("no beacon this time: %s", error)

    async def _release_loop(self) -> None:
        while True:
            await self._releases_due.wait()
            self._releases_due.clear()
            try:
                await self._load_releases()
            except (SQLAlchemyError, StorageError) as error:
                _log.error("the releases could not be read: %s", error)

    async def _load_releases(self) -> None:
        """Read what is on offer, verify it, and tell the terminals if it changed."""
        assert self._database is not None
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(
            self._executor, release_reads.on_offer, self._database, self.config.site
        )
        commands = await loop.run_in_executor(
            self._executor,
            update_commands.newest,
            self._database,
            self.config.site,
            self._clock.unix_time(),
        )
        self._updates.commands.replace(commands)
        if stored == self._on_offer:
            return
        releases = await loop.run_in_executor(self._executor, self._verified, stored)
        self._on_offer = stored
        self._updates.replace(SiteReleases(releases, stored.rollouts, stored.groups, stored.rotations))

    def _verified(self, stored: release_reads.OnOffer) -> Releases:
        bundles = []
        for offer, data in stored.bundles:
            try:
                bundles.append(open_bundle(offer, data, self._keystore.root))
            except Refusal as refusal:
                _log.error("a stored release is not served: %s", refusal)
        return Releases(bundles)

    async def _tick_loop(self) -> None:
        """Every fifth of a second: let the writer look for changes made by others, and store what was
        observed.
        """
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._flush_observations()
            except (StorageError, QueueFull) as error:
                _log.error("observations are kept for later: %s", error)

    async def _prune_loop(self) -> None:
        """A batch of answers beyond their time every minute, every second while there is a backlog."""
        assert self._writer is not None
        pause_s = FIRST_PRUNING_S
        while True:
            await asyncio.sleep(pause_s)
            before = self._clock.unix_time() - self.config.keep_answers_days * DAY_S
            try:
                pruned = await self._writer.run(PruneAnswers(self.config.site, before))
            except (StorageError, QueueFull) as error:
                _log.error("old answers are kept for now: %s", error)
                pruned = 0
            pause_s = PRUNING_S if pruned < BATCH else BACKLOG_PRUNING_S

    async def _flush_observations(self) -> None:
        assert self._writer is not None
        job = self.observations.take(self._clock.unix_time())
        try:
            if job is None:
                await self._writer.run(_look)
            else:
                await self._writer.run(job)
        except (StorageError, QueueFull):
            if job is not None:
                self.observations.restore(job)
            raise
        await self._store_reports()

    async def _store_reports(self) -> None:
        assert self._writer is not None
        reports = self._updates.take(self._clock.unix_time())
        if reports is None:
            return
        try:
            await self._writer.run(reports)
        except (StorageError, QueueFull):
            self._updates.restore(reports)
            raise

    def _write_address(self) -> None:
        host, port = self.address
        found: dict[str, object] = {
            "pid": os.getpid(), "site": self.config.site, "mqtt": {"host": host, "port": port}
        }  # fmt: skip
        if self.http_address is not None:
            found["http"] = dict(zip(("host", "port"), self.http_address, strict=True))
        text = json.dumps(found)
        path = self.config.state / ADDRESS_NAME
        fresh = path.with_suffix(".new")
        fresh.write_text(text + "\n")
        os.replace(fresh, path)

    def _need_broker(self) -> MessageBroker:
        if self._broker is None:
            raise RuntimeError("the server is not started")
        return self._broker


def _look(_connection: sqlite3.Connection) -> None:
    """An empty job: the writer checks the admin revision before every batch."""
