"""What time does to the server: memory over a long run, cost with many stored orders, bytes per order."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias, TypeVar

import uvloop

from bench.benchmarks.load_client import SoftTerminal
from bench.benchmarks.past_orders import fill
from bench.benchmarks.server_load import (
    SERVER_OPTIONS,
    SITE,
    bring_online,
    cpu_seconds,
    enrol,
    open_loop,
    order_total,
    saturate,
)
from bench.measure import Measurement, measurement
from bench.paths import BUILD
from bench.server import BenchServer
from server.storage.location import database_path

WINDOW = 8
SLICE_S = 5.0
WARM_SHARE = 0.2
FLAT = 0.1
MAX_GROWTH = 1.25
PER_ORDERS = 100_000
WARM_S = 1.0

T = TypeVar("T")
Say = Callable[[str], None]
Scenario: TypeAlias = Callable[[BenchServer, Sequence[SoftTerminal]], Coroutine[Any, Any, T]]
Observations = list[dict[str, object]]


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB (10**6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(budget_s: float, rate: float, devices: int, say: Say) -> tuple[Observations, list[Measurement]]:
    """Orders at a steady rate for ``budget_s`` seconds; the server's memory must stay where it was."""
    found: Observations = []

    async def run(server: BenchServer, terminals: Sequence[SoftTerminal]) -> int:
        begun, unanswered = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < budget_s:
            result = await open_loop(terminals, rate, min(SLICE_S, max(0.2, budget_s / 10)))
            unanswered += result.sent - result.committed
            found.append({"seconds": round(passed, 1), "rss_mb": round(rss_mb(server.pid), 2),
                          "p99_ms": round(result.percentile(0.99), 2)})  # fmt: skip
            if len(found) % 12 == 0:
                say(f"{passed:6.0f} s  {found[-1]['rss_mb']} MB  p99 {found[-1]['p99_ms']} ms")
        return unanswered

    with _Bench(devices) as bench:
        unanswered = bench.play(run)
        stored = bench.server.ledger.order_count(SITE)
    memory = [float(str(one["rss_mb"])) for one in found]
    warm = memory[int(len(memory) * WARM_SHARE) :]
    fifth = max(1, len(warm) // 5)
    early, late = mean(warm[:fifth]), mean(warm[-fifth:])
    note = f"first and last fifth of {len(warm)} samples after a warm-up; {stored:,} orders"
    return found, [
        measurement("rss_early_mb", early, "MB"),
        measurement("rss_late_mb", late, "MB"),
        measurement("rss_change", abs(late / early - 1), "x", f"<= {FLAT:g}", note=note),
        measurement("orders_unanswered", unanswered, "orders", "== 0"),
    ]


@dataclass(frozen=True, slots=True)
class Level:
    """How the server did with so many orders in its database."""

    stored: int
    orders_per_s: float
    cpu_per_order_us: float
    p50_ms: float
    p99_ms: float
    database_mb: float


def growth(
    sizes: Sequence[int], seconds: float, devices: int, say: Say
) -> tuple[list[Level], list[Measurement]]:
    """The cost of an order with 10,000, 100,000 ... stored orders, made in bulk between the measurements."""
    found: list[Level] = []
    with _Bench(devices) as bench:
        for size in sorted(sizes):
            bench.grow(size, say)
            found.append(one := bench.play(_measuring(size, seconds)))
            say(f"{one.stored:>9,} stored  {one.orders_per_s:7,.0f} orders/s  "
                f"{one.cpu_per_order_us:5.0f} us CPU/order  "
                f"p50 {one.p50_ms:.1f}  p99 {one.p99_ms:.1f} ms  {one.database_mb:,.0f} MB")  # fmt: skip
    first, last = found[0], found[-1]
    note = f"{last.stored:,} stored orders over {first.stored:,}"
    return found, [
        measurement("cpu_per_order_growth", last.cpu_per_order_us / first.cpu_per_order_us, "x",
                    f"<= {MAX_GROWTH:g}", note=note),
        measurement("p50_growth", last.p50_ms / first.p50_ms, "x", note=note),
    ]  # fmt: skip


def _measuring(size: int, seconds: float) -> Scenario[Level]:
    async def run(server: BenchServer, terminals: Sequence[SoftTerminal]) -> Level:
        before = cpu_seconds(server.pid)
        result = await saturate(terminals, WINDOW, seconds)
        cpu_s = cpu_seconds(server.pid) - before
        return Level(
            size, result.per_second, cpu_s / max(1, result.committed) * 1e6, result.percentile(0.5),
            result.percentile(0.99), database_bytes(server.state) / 1e6,
        )  # fmt: skip

    return run


def size(orders: int, devices: int, say: Say) -> tuple[Observations, list[Measurement]]:
    """Bytes of database that real orders of three lines take."""

    async def run(server: BenchServer, terminals: Sequence[SoftTerminal]) -> int:
        done = 0
        while done < orders:
            done += (await saturate(terminals, WINDOW, 1.0)).committed
        return done

    with _Bench(devices) as bench:
        _shrink(bench.server.state)
        before = database_bytes(bench.server.state)
        done = bench.play(run)
        bench.server.stop()
        _shrink(bench.server.state)
        grown = database_bytes(bench.server.state) - before
    say(f"{done:,} orders grew the database by {grown:,} bytes")
    per = grown / done * PER_ORDERS / 1e6
    figures = [
        measurement("database_mb_per_100k_orders", per, "MB", note=f"from {done:,} orders of three lines"),
        measurement("database_bytes_per_order", grown / done, "bytes"),
    ]
    return [{"orders": done, "grown_bytes": grown}], figures


def database_bytes(state: Path) -> int:
    """Size of a database without its write-ahead log."""
    with closing(sqlite3.connect(database_path(state))) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        return int(pages) * int(connection.execute("PRAGMA page_size").fetchone()[0])


def _shrink(state: Path) -> None:
    with closing(sqlite3.connect(database_path(state), timeout=10)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Bench:
    """A server with enrolled terminals in a folder that goes away."""

    def __init__(self, devices: int) -> None:
        self._devices = devices

    def __enter__(self) -> _Bench:
        BUILD.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="endurance-", dir=BUILD)
        folder = Path(self._folder.name)
        self.server = BenchServer(folder / "state", folder / "server.log", SITE, SERVER_OPTIONS)
        try:
            self.server.start()
            self._terminals = enrol(self.server.state, self._devices)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self._folder.cleanup()

    def grow(self, orders: int, say: Say) -> None:
        """Give it a past of at least so many orders; the server is stopped meanwhile."""
        self.server.stop()
        fill(self.server.state, SITE, self._devices, orders, say)
        self.server.start()

    def play(self, scenario: Scenario[T]) -> T:
        """Run a scenario with the server and its terminals, which are online and have ordered a little."""

        async def run() -> T:
            await bring_online(self._terminals, self.server.host, self.server.port)
            await order_total(self._terminals[0])
            await saturate(self._terminals, WINDOW, WARM_S)
            try:
                return await scenario(self.server, self._terminals)
            finally:
                for terminal in self._terminals:
                    terminal.vanish()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
