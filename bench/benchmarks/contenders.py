"""The servers that are measured against each other: ours in its configurations, and the plain one."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from bench import children
from bench.benchmarks.http_client import HttpPool, HttpTerminal
from bench.benchmarks.load_client import SoftTerminal
from bench.benchmarks.server_load import SERVER_OPTIONS, SITE, bring_online, cpu_seconds, enrol
from bench.errors import BenchError
from bench.mosquitto import PrivateMosquitto
from bench.paths import ROOT
from bench.server import BenchServer
from server.config import DEMO_MENU
from server.wire import aad
from server.wire.frames import SID_BYTES
from server.wire.keyschedule import SessionKeys

START_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A contender under way: its terminals, and the CPU seconds its processes have used so far."""

    terminals: Sequence[SoftTerminal]
    cpu: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to be measured. ``start(folder, devices, window)`` gives it ready for orders."""

    name: str
    database: str
    start: Callable[[Path, int, int], AbstractAsyncContextManager[Running]]


def ours(name: str, *, mosquitto: bool = False, url: str | None = None) -> Contender:
    """Our server, with its own broker or a mosquitto; ``url`` names a PostgreSQL database."""

    @asynccontextmanager
    async def start(folder: Path, devices: int, window: int) -> AsyncIterator[Running]:
        broker = PrivateMosquitto(folder / "broker") if mosquitto else None
        options = [*SERVER_OPTIONS, *(("--database", url) if url else ())]
        server = BenchServer(folder / "state", folder / "server.log", SITE, options, broker=broker)
        server.start()
        try:
            terminals = enrol(server.state, devices)
            server.tell_broker()
            await bring_online(terminals, server.host, server.port)
            pids = [server.pid] if broker is None else [server.pid, broker.pid]
            yield Running(terminals, lambda: sum(map(cpu_seconds, pids)))
            for terminal in terminals:
                terminal.vanish()
        finally:
            server.stop()

    return Contender(name, "postgresql" if url else "sqlite", start)


def plain(name: str, *, url: str | None = None) -> Contender:
    """The plain server; as many connections as ours has orders in flight."""

    @asynccontextmanager
    async def start(folder: Path, devices: int, window: int) -> AsyncIterator[Running]:
        terminals, setup = _plain_terminals(devices)
        (folder / "setup.json").write_text(json.dumps(setup))
        database = url.replace("postgresql://", "postgresql+psycopg://", 1) if url else None
        words = [
            "--database",
            database or f"sqlite:///{folder / 'plain.db'}",
            "--setup",
            str(folder / "setup.json"),
        ]
        with (folder / "plain.log").open("ab") as log:
            child = children.spawn([sys.executable, "-m", "bench.benchmarks.baseline_server", *words],
                                   cwd=ROOT, stdout=subprocess.PIPE, stderr=log)  # fmt: skip
        try:
            pool = HttpPool(_port_of(child, folder / "plain.log"), devices * window)
            await pool.open()
            for terminal, sid, keys in terminals:
                terminal.join(pool, sid, keys, 1)
            yield Running([terminal for terminal, _, _ in terminals], lambda: cpu_seconds(child.pid))
            pool.close()
        finally:
            children.stop(child, 5.0)
            if child.stdout is not None:
                child.stdout.close()

    return Contender(name, "postgresql" if url else "sqlite", start)


def _plain_terminals(devices: int) -> tuple[list[tuple[HttpTerminal, bytes, SessionKeys]], dict[str, Any]]:
    """Terminals with sessions made up for them, and what the plain server's tables start with."""
    key = generate_private_key(public_exponent=65537, key_size=2048)  # never used: there is no handshake
    made, rows = [], []
    for number in range(devices):
        device, table = f"load-{number:03d}", f"table-{number:03d}"
        sid, th8 = secrets.token_bytes(SID_BYTES), sha256(device.encode()).digest()[:8]
        keys = SessionKeys(secrets.token_bytes(32), secrets.token_bytes(32), b"", th8)
        made.append((HttpTerminal(SITE, device, table, "", key, _ANY_ROOT), sid, keys))
        rows.append({
            "device": device, "table": table, "sid": sid.hex(),
            "key_in": keys.device_to_server.hex(), "key_out": keys.server_to_device.hex(),
            "aad_in": aad.op(SITE, device, sid, th8).hex(),
            "aad_out": aad.reply(SITE, device, sid, th8).hex(),
        })  # fmt: skip
    menu = json.loads(DEMO_MENU.read_text("utf-8"))
    taxes = {tax["id"]: tax["basis_points"] for tax in menu["taxes"]}
    items = [
        {"id": item["id"], "name": item["name"], "price_minor": item["price_minor"],
         "tax_basis_points": taxes[item["tax"]]}
        for item in menu["items"]
    ]  # fmt: skip
    return made, {"items": items, "terminals": rows}


_ANY_ROOT = (ROOT / "fixtures" / "keys" / "root.pub.der").read_bytes()


def _port_of(child: subprocess.Popen[bytes], log: Path) -> int:
    assert child.stdout is not None
    end = time.monotonic() + START_DEADLINE_S
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if selector.select(end - time.monotonic()):
            line = os.read(child.stdout.fileno(), 4096)
            if line:
                return int(json.loads(line)["port"])
    words = log.read_text(errors="replace").strip().splitlines()
    raise BenchError(
        "BASELINE", f"the plain server did not start: {words[-1] if words else 'it said nothing'}"
    )
