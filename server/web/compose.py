"""Makes the HTTP side of a running server out of the server's parts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from limits import RateLimitItemPerSecond

from server.config import ServerConfig
from server.devices.keys import KeyStore
from server.devices.seams import Clock
from server.devices.verify import Session
from server.ordering.catalogue import Catalogue
from server.service.service import Service
from server.storage.database import Database
from server.storage.tokens import load_tokens
from server.storage.transaction import Transaction
from server.storage.writer import Writer
from server.transport.ingest import Ingest
from server.transport.notices import Notices
from server.transport.observations import Observations
from server.transport.updates import Updates
from server.web.access import Caller, Role, TokenBook
from server.web.app import create_app
from server.web.feed import Hub
from server.web.limits import WebLimiter, WebLimits
from server.web.metrics import Figures, Metrics
from server.web.reads import Reads
from server.web.serve import HttpServer
from server.web.services import Connected, Services


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root hands over."""

    config: ServerConfig
    clock: Clock
    database: Database
    catalogue: Catalogue
    keystore: KeyStore
    writer: Writer
    ingest: Ingest
    sessions: dict[str, Session]
    observations: Observations
    broker: Connected
    notices: Notices
    updates: Updates


class HttpSide:
    """The API of one server: ``start``, then ``stop``; ``reload`` when the registry changed."""

    def __init__(self, parts: Parts) -> None:
        config = parts.config
        rate = RateLimitItemPerSecond(*config.http_rate)
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="web-admin")
        reads = Reads(parts.database.path)
        self.services = services = Services(
            site=config.site,
            clock=parts.clock,
            database=parts.database,
            catalogue=parts.catalogue,
            keystore=parts.keystore,
            writer=parts.writer,
            ingest=parts.ingest,
            sessions=parts.sessions,
            observations=parts.observations,
            broker=parts.broker,
            executor=self._executor,
            tokens=TokenBook(),
            limiter=WebLimiter(WebLimits(address=rate, token=rate)),
            metrics=Metrics(),
            reads=reads,
            notices=parts.notices,
            house=Service(parts.catalogue, parts.clock),
            hub=Hub(reads, config.site),
            updates=parts.updates,
        )
        services.metrics.watch(lambda: figures(services), lambda: services.observations.totals)
        host, port = config.http or ("127.0.0.1", 0)
        self._server = HttpServer(create_app(services), host, port)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._server.address

    async def start(self) -> None:
        """Read the tokens and listen. Raises: ListenError."""
        await self.services.writer.run(self.reload)
        self.services.hub.start()
        self.services.writer.on_commit = self.services.hub.poke
        await self._server.start()

    async def stop(self) -> None:
        """Finish running calls, then let go of threads and connections."""
        await self._server.stop()
        self.services.writer.on_commit = None
        await self.services.hub.stop()
        self._executor.shutdown(wait=True)
        self.services.reads.close()

    def reload(self, transaction: Transaction) -> None:
        """Read the tokens that count; callable from the writer's thread."""
        site = self.services.site
        self.services.tokens.replace(
            (bytes(digest), Caller(str(token_id), Role(role), str(name), device, expires_at))
            for digest, token_id, role, name, device, expires_at in load_tokens(transaction, site)
        )


def figures(services: Services) -> Figures:
    """{metric: (help, value)}; cheap, and safe to call on the loop."""
    stats, snapshot = services.writer.stats, services.catalogue.snapshot
    connected = len(services.broker.connected())
    return {
        "tableside_jobs_total": ("Jobs the writer has taken", stats.jobs),
        "tableside_commits_total": ("Transactions the writer has tried", stats.batches),
        "tableside_failed_jobs_total": ("Jobs that were refused or failed", stats.failed_jobs),
        "tableside_failed_commits_total": ("Transactions that were rolled back", stats.failed_batches),
        "tableside_commit_seconds_total": ("Seconds spent in transactions", stats.commit_seconds),
        "tableside_largest_commit_jobs": ("Most jobs in one transaction so far", stats.largest_batch),
        "tableside_queue_jobs": ("Jobs waiting for the writer", services.writer.depth),
        "tableside_sessions": ("Live sessions", len(services.sessions)),
        "tableside_devices": ("Registered terminals", len(snapshot.devices)),
        "tableside_devices_connected": ("Terminals with an open connection", connected),
        "tableside_menu_version": ("Current menu", snapshot.current.version if snapshot.current else 0),
        "tableside_http_reads_waiting": ("Database reads under way", services.reads.waiting),
        "tableside_feeds": ("Open live feeds", services.hub.clients),
        "tableside_http_limit_keys": ("Callers the rate limiter remembers", services.limiter.keys),
    }
