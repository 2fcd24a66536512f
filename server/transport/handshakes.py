"""Handshakes off the event loop: one at a time per device, a bounded number in all.

Judging a Hello costs about three milliseconds of RSA, so it runs in a worker thread; the session is stored
by the writer; only after that commit does the Accept leave. Whatever is wrong with a Hello, its device gets
the one refusal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from server.devices.handshake import Handshake, HandshakeResult
from server.devices.records import MenuReference, SessionRow
from server.devices.verify import Session
from server.ordering.catalogue import Catalogue
from server.storage.database import StorageError
from server.storage.registry import StaleHello, StoreSession, load_device, seating_of
from server.storage.writer import QueueFull, Writer
from server.transport.limits import RateLimiter
from server.transport.notices import Notices
from server.transport.observations import Observations
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import hello_rate_limited, hello_refused

MAX_WAITING = 256
BUSY_RETRY_MS = 500
_log = logging.getLogger("tableside.handshakes")


class Handshakes:
    """Takes Hellos, answers them through ``send(device, payload)`` and keeps ``sessions`` current."""

    def __init__(
        self,
        handshake: Handshake,
        catalogue: Catalogue,
        writer: Writer,
        limiter: RateLimiter,
        observations: Observations,
        executor: Executor,
        sessions: dict[str, Session],
        send: Callable[[str, bytes], None],
        notices: Notices,
    ) -> None:
        self._handshake = handshake
        self._catalogue = catalogue
        self._writer = writer
        self._limiter = limiter
        self._observations = observations
        self._executor = executor
        self._sessions = sessions
        self._send = send
        self._notices = notices
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hello(self, device: str, frame: bytes, done: Callable[[bool], None]) -> None:
        """Take a Hello of an authenticated device; ``done`` is called when it has been answered."""
        wait_ms = self._limiter.hello(device)
        if wait_ms == 0 and (device in self._busy or len(self._busy) >= MAX_WAITING):
            wait_ms = BUSY_RETRY_MS
        if wait_ms:
            self._observations.refuse(device, "hello_rate_limited")
            self._send(device, hello_rate_limited(frame, wait_ms))
            done(True)
            return
        self._busy.add(device)
        task = asyncio.create_task(self._answer(device, frame, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, device: str, frame: bytes, done: Callable[[bool], None]) -> None:
        handled, table = True, None
        try:
            accept, table = await self._accept(device, frame)
            self._send(device, accept)
        except (Refusal, StaleHello) as refusal:
            self._observations.refuse(device, str(refusal.code))
            self._send(device, hello_refused(frame))
        except QueueFull:
            self._observations.refuse(device, "queue_full")
            self._send(device, hello_rate_limited(frame, BUSY_RETRY_MS))
        except StorageError:
            self._observations.refuse(device, "storage_error")
            handled = False
        finally:
            self._busy.discard(device)
            done(handled)
        if table is not None:  # the device may already shake hands again
            await self._announce(device, table)

    async def _announce(self, device: str, table: str) -> None:
        """Tell a new session who sits at its table; nothing depends on it."""
        try:
            seating = await self._writer.run(
                lambda transaction: seating_of(transaction, self._catalogue.site, table)
            )
        except (QueueFull, StorageError) as error:
            _log.warning("the seating at table %s was not announced: %s", table, error)
            return
        self._notices.announce(device, table, seating)

    async def _accept(self, device: str, frame: bytes) -> tuple[bytes, str | None]:
        """The Accept, and the device's table where a new session was stored."""
        current = self._catalogue.snapshot.current
        if current is None:
            raise Refusal(RefusalCode.BAD_MENU, "no menu is published")
        menu = MenuReference(current.version, current.hash)
        record = await self._writer.run(
            lambda connection: load_device(connection, self._catalogue.site, device)
        )
        if record is None:
            raise Refusal(RefusalCode.UNKNOWN_DEVICE, "the device is not registered")
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._executor, self._handshake.prepare, record, frame, menu)
        if result.session is not None:
            await self._store(result, result.session)
        return result.accept, None if result.session is None else record.table

    async def _store(self, result: HandshakeResult, row: SessionRow) -> None:
        await self._writer.run(StoreSession(result, row))
        self._sessions[row.device] = Session(row)
