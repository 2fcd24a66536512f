"""What a server takes from the machine it runs on: time, randomness, threads, its database file, its socket.

``Platform()`` is the real machine. The deterministic simulation passes one whose parts live on virtual time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from server.devices.seams import Clock, Entropy, SystemClock, SystemEntropy
from server.storage.database import Connect, Database, sqlite_connect
from server.storage.writer import Writer
from server.transport.broker import DeviceBroker


def rsa_threads() -> Executor:
    """Two threads for what would block the loop: RSA, password hashes, rare database reads."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="server-rsa")


@dataclass(frozen=True, slots=True)
class Platform:
    """One machine. ``monotonic`` gives seconds; ``executor`` is called once per server."""

    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
    monotonic: Callable[[], float] = time.monotonic
    executor: Callable[[], Executor] = rsa_threads
    connect: Connect = sqlite_connect
    writer: type[Writer] = Writer
    broker: type[DeviceBroker] = DeviceBroker

    def writer_for(self, database: Database) -> Callable[..., Writer]:
        """What makes the writer of a database; its driver is imported only where it is needed."""
        if database.dialect == "sqlite":
            return self.writer
        from server.ordering.together import OrderGroups
        from server.storage.postgres_writer import PostgresWriter

        return partial(PostgresWriter, groups=OrderGroups())
