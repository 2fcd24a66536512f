"""Where a server may be killed to the step: before, inside and after a commit, before and after its answer.

The production code knows nothing of these points: they sit in database connections and brokers that only the
nursery gives to a server. A fuse kills its own process with SIGKILL at the n-th pass of one point.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.transport.broker import DeviceBroker
from server.transport.seams import OnPublish

LINGER_S = 0.03  # before a commit is complete: what leaves too early has time to leave


class Fuse:
    """Counts passes of one point and kills the process at the n-th; without a point it never does."""

    def __init__(self, point: str = "", passes: int = 1) -> None:
        self._point = point
        self._left = passes

    def at(self, point: str, prepare: Callable[[], None] | None = None) -> None:
        """Pass a point; ``prepare`` runs right before the kill."""
        if point != self._point:
            return
        self._left -= 1
        if self._left <= 0:
            if prepare is not None:
                prepare()
            os.kill(os.getpid(), signal.SIGKILL)


def connector(fuse: Fuse) -> Callable[[Path], sqlite3.Connection]:
    """A ``Connect`` whose connections pass the points of a commit."""

    class Fused(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if sql == "COMMIT":
                fuse.at("commit", _linger)
                cursor = super().execute(sql)
                fuse.at("committed")
                return cursor
            if sql == "BEGIN IMMEDIATE":
                fuse.at("begin")
            return super().execute(sql, parameters)

        def commit(self) -> None:
            if not self.in_transaction:
                return
            fuse.at("commit", _linger)
            super().commit()
            fuse.at("committed")

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, factory=Fused)

    return connect


def _linger() -> None:
    time.sleep(LINGER_S)


def broker(fuse: Fuse) -> type[DeviceBroker]:
    """The embedded broker with the points around an answer."""

    class Fused(DeviceBroker):
        def __init__(self, *, on_publish: OnPublish, **options: Any) -> None:
            def watched(device: str, kind: str, payload: bytes, done: Callable[[bool], None]) -> None:
                def acknowledged(stored: bool) -> None:
                    done(stored)
                    if kind == "op":
                        fuse.at("acked", lambda: self._push_out(device))

                on_publish(device, kind, payload, acknowledged)

            super().__init__(on_publish=watched, **options)

        def send(self, device: str, topic: str, payload: bytes) -> bool:
            answers = topic.endswith("/reply")
            if answers:
                fuse.at("reply")
            sent = super().send(device, topic, payload)
            if answers:
                fuse.at("replied", lambda: self._push_out(device))
            return sent

        def _push_out(self, device: str) -> None:
            """What was gathered for a device reaches the kernel now."""
            connection = self._connections.get(device)
            if connection is not None:
                connection._flush()

    return Fused


def arm_postgres(fuse: Fuse) -> None:
    """Give every PostgreSQL connection of this process the points of a commit."""
    from server.storage import postgres

    class Fused(postgres.PostgresConnection):
        def begin(self, *, shared: bool = False) -> None:
            fuse.at("begin")
            super().begin(shared=shared)

        def commit(self) -> None:
            fuse.at("commit", _linger)
            super().commit()
            fuse.at("committed")

    vars(postgres)["PostgresConnection"] = Fused


def arm_uplink(fuse: Fuse) -> None:
    """Give the connection to a broker beside the server the points around an answer."""
    from server.transport import external

    class Fused(external.ExternalBroker):
        def send(self, device: str, topic: str, payload: bytes) -> bool:
            answers = topic.endswith("/reply")
            if answers:
                fuse.at("reply")
            sent = super().send(device, topic, payload)
            if answers:
                fuse.at("replied")
            return sent

        def _offer(self, device: str, kind: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
            def acknowledged() -> None:
                acknowledge()
                if kind == "op":  # the packet leaves when gmqtt's coroutine returns
                    asyncio.get_running_loop().call_later(LINGER_S, fuse.at, "acked")

            super()._offer(device, kind, payload, acknowledged)

    vars(external)["ExternalBroker"] = Fused
