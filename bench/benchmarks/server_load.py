"""How many sealed orders the server commits per second, how long an answer takes, what an order costs in
CPU.

A real server process with its embedded broker and SQLite (synchronous=FULL); real terminals in software:
RSA handshake, sealed ops, every reply verified. Two patterns: a closed loop (each terminal keeps ``window``
orders in flight) finds the saturation rate; an open loop at a fixed rate measures latency from the
scheduled time of each order, so that a stall of the server is charged to every order it delayed. Server and
load share this machine's cores: the rate is a lower bound.

Run: python -m bench.benchmarks.server_load --json -
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from bench.benchmarks.load_client import LinkError, SoftTerminal
from bench.errors import BenchError
from bench.measure import Measurement, measurement
from bench.paths import BUILD
from bench.server import BenchServer
from server.config import KEYS_NAME
from server.devices.keys import KeyStore
from server.devices.records import DeviceState
from server.storage import admin
from server.storage.database import open_database
from server.storage.ledger import Ledger
from server.transport.auth import hash_password
from server.wire.ops import Line, Reply, Status
from server.wire.rsa import spki_of

SITE = "demo"
PASSWORD = "load"
DRAIN_DEADLINE_S = 20.0
ANSWER_DEADLINE_S = 60.0  # a server that cannot keep up works off its queue first
SERVER_OPTIONS = ("--limit-op", "1000000:1000000", "--limit-hello", "100:100")
ORDER = (Line(1, 2), Line(2, 1), Line(8, 1))


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run of a load pattern saw; latencies in milliseconds, one per answered order."""

    sent: int
    committed: int
    seconds: float
    latencies_ms: tuple[float, ...]

    @property
    def per_second(self) -> float:
        """Committed orders per second."""
        return self.committed / self.seconds

    def percentile(self, share: float) -> float:
        """Latency below which ``share`` of the answers came, in milliseconds."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def enrol(state: Path, count: int, site: str = SITE) -> list[SoftTerminal]:
    """Register ``count`` fresh terminals, each on its own table, in a served state folder."""
    root_spki = KeyStore(state / KEYS_NAME, site).root_spki
    database = open_database(state)
    terminals = []
    try:
        hashed = hash_password(PASSWORD)
        for number in range(count):
            name, key = f"load-{number:03d}", generate_private_key(public_exponent=65537, key_size=2048)
            admin.add_device(
                database,
                site,
                name,
                table=f"table-{number:03d}",
                spki=spki_of(key.public_key()),
                password_hash=hashed,
                state=DeviceState.ACTIVE,
                now_s=int(time.time()),
            )
            terminals.append(SoftTerminal(site, name, f"table-{number:03d}", PASSWORD, key, root_spki))
    finally:
        database.close()
    return terminals


async def bring_online(terminals: Sequence[SoftTerminal], host: str, port: int) -> None:
    """Connect every terminal and shake hands. Raises: LinkError, TimeoutError."""
    for terminal in terminals:
        for attempt in range(8):
            try:
                await terminal.connect(host, port)
                break
            except LinkError:
                if attempt == 7:
                    raise
                await asyncio.sleep(0.25)  # just registered: the server looks five times a second
        await terminal.hello()


class _Tally:
    """Collects replies of all terminals."""

    def __init__(self, terminals: Sequence[SoftTerminal]) -> None:
        self.due: dict[bytes, float] = {}
        self.latencies_ms: list[float] = []
        self.committed = 0
        self.sent = 0
        self._empty = asyncio.Event()
        self.room: dict[str, asyncio.Semaphore] = {}
        for terminal in terminals:
            terminal.on_reply = self._listener(terminal.device)

    def _listener(self, device: str) -> Callable[[Reply], None]:
        def listen(reply: Reply) -> None:
            due = self.due.pop(reply.op_id, None)
            if due is None:
                return
            self.latencies_ms.append((time.perf_counter() - due) * 1000.0)
            self.committed += reply.status == Status.COMMITTED
            if not self.due:
                self._empty.set()
            if device in self.room:
                self.room[device].release()

        return listen

    def send(self, terminal: SoftTerminal, total_minor: int, due: float) -> None:
        op = terminal.make_op(ORDER, total_minor)
        self.due[op.op_id] = due
        self.sent += 1
        terminal.send(op)

    async def drain(self) -> None:
        """Wait until everything sent is answered, or the deadline has passed."""
        self._empty.clear()
        if self.due:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), DRAIN_DEADLINE_S)

    def result(self, seconds: float) -> LoadResult:
        return LoadResult(self.sent, self.committed, seconds, tuple(self.latencies_ms))


async def order_total(terminal: SoftTerminal) -> int:
    """The total of the benchmark's order under the current menu: asked of the server, which answers
    REPRICE.
    """
    reply = await terminal.order(terminal.make_op(ORDER, 1), ANSWER_DEADLINE_S)
    if reply.status != Status.REPRICE:
        raise BenchError(
            "LOAD", f"the benchmark's order was answered with status {reply.status}, arg {reply.arg}"
        )
    return reply.total_minor


async def saturate(terminals: Sequence[SoftTerminal], window: int, seconds: float) -> LoadResult:
    """Closed loop: every terminal keeps ``window`` orders in flight for ``seconds``."""
    total = await order_total(terminals[0])
    tally = _Tally(terminals)
    begun = time.perf_counter()
    end = begun + seconds

    async def run(terminal: SoftTerminal) -> None:
        room = tally.room[terminal.device] = asyncio.Semaphore(window)
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(room.acquire(), max(0.001, end - time.perf_counter()))
            now = time.perf_counter()
            if now >= end:
                return
            tally.send(terminal, total, now)

    await asyncio.gather(*[run(terminal) for terminal in terminals])
    await tally.drain()
    return tally.result(time.perf_counter() - begun)


async def open_loop(terminals: Sequence[SoftTerminal], per_second: float, seconds: float) -> LoadResult:
    """Open loop: orders at fixed times whatever the server does, terminals in turn."""
    total = await order_total(terminals[0])
    tally = _Tally(terminals)
    begun = time.perf_counter()
    for number in range(int(per_second * seconds)):
        due = begun + number / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tally.send(terminals[number % len(terminals)], total, due)
    await tally.drain()
    return tally.result(time.perf_counter() - begun)


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    server: BenchServer, *, devices: int, window: int, seconds: float, rate: float
) -> list[Measurement]:
    """Run both patterns against a running server and return the figures."""
    terminals = enrol(server.state, devices, server.site)
    await bring_online(terminals, server.host, server.port)
    await saturate(terminals, window, min(1.0, seconds))
    before = cpu_seconds(server.pid)
    full = await saturate(terminals, window, seconds)
    cpu = cpu_seconds(server.pid) - before
    steady = await open_loop(terminals, rate, seconds)
    for terminal in terminals:
        if terminal.link is not None:
            terminal.link.close()
    stored = Ledger(server.state).order_count(server.site)
    lost = full.sent - full.committed + steady.sent - steady.committed
    at_full = f"{devices} terminals, {window} in flight each"
    at_rate = f"open loop at {rate:g}/s, from the scheduled time"
    return [
        measurement("server_orders_per_s", full.per_second, "1/s", ">= 500", note=at_full),
        measurement("server_p50_saturated_ms", full.percentile(0.5), "ms", note=at_full),
        measurement("server_p99_saturated_ms", full.percentile(0.99), "ms", note=at_full),
        measurement(
            "server_cpu_per_order_us", cpu / max(1, full.committed) * 1e6, "us", note="user + system"
        ),
        measurement("server_p50_at_rate_ms", steady.percentile(0.5), "ms", note=at_rate),
        measurement("server_p99_at_rate_ms", steady.percentile(0.99), "ms", note=at_rate),
        measurement("server_orders_unanswered", lost, "orders", "== 0", note=f"{stored} orders stored"),
    ]


def run(*, devices: int, window: int, seconds: float, rate: float, folder: Path) -> list[Measurement]:
    """Start a server of its own, measure, stop it."""
    server = BenchServer(folder / "state", folder / "server.log", SITE, SERVER_OPTIONS)
    server.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(server, devices=devices, window=window, seconds=seconds, rate=rate))
    finally:
        server.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit 0 when every limit is kept, 1 when not, 2 when it could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.benchmarks.server_load",
        description="Measure the order server: orders per second at saturation, latency at a fixed rate, "
        "CPU per order.",
        epilog="example: python -m bench.benchmarks.server_load --devices 16 --window 8 --seconds 5 --json -",
    )
    parser.add_argument("--devices", type=int, default=16, help="terminals (default: %(default)d)")
    parser.add_argument(
        "--window", type=int, default=8, help="orders in flight per terminal (default: %(default)d)"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="length of each pattern (default: %(default)g)"
    )
    parser.add_argument(
        "--rate", type=float, default=200.0, help="open loop, orders per second (default: %(default)g)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the figures as JSON, - for standard output"
    )
    args = parser.parse_args(argv)
    if not (
        1 <= args.devices <= 500 and 1 <= args.window <= 64 and 0.1 <= args.seconds <= 600 and args.rate > 0
    ):
        parser.error("1-500 devices, a window of 1-64, 0.1-600 seconds and a positive rate are needed")
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="server-load-", dir=BUILD) as folder:
            figures = run(
                devices=args.devices,
                window=args.window,
                seconds=args.seconds,
                rate=args.rate,
                folder=Path(folder),
            )
    except (BenchError, LinkError, OSError, TimeoutError) as error:
        print(f"server_load: could not be measured: {error}", file=sys.stderr)
        return 2
    document = [
        {
            "name": figure.name,
            "value": round(figure.value, 3),
            "unit": figure.unit,
            "limit": figure.limit,
            "outcome": figure.outcome,
            "note": figure.note,
        }
        for figure in figures
    ]
    if args.json == "-":
        print(json.dumps(document))
    else:
        for figure in figures:
            print(f"{figure.name:28s} {figure.value:10.1f} {figure.unit:7s} {figure.note}")
        if args.json:
            Path(args.json).write_text(json.dumps(document) + "\n")
    return 0 if all(figure.outcome == "pass" for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
