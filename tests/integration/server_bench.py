"""A real server process for the server's integration tests, and software terminals registered with it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.benchmarks.load_client import LinkError, SoftTerminal
from bench.server import BenchServer
from server.storage.ledger import Ledger

SITE = "demo"
NOTICE_S = 0.25  # how often a server looks for what was changed beside it
PASSWORD = "pw"
KEYS = Path(__file__).resolve().parents[2] / "fixtures" / "keys"
ROOT_SPKI = (KEYS / "root.pub.der").read_bytes()
SEEN_WITHIN_S = 5.0
_made: list[SoftTerminal] = []


@contextmanager
def a_server(template: Path, folder: Path, *options: str) -> Iterator[BenchServer]:
    """A server on a copy of a prepared state; it must leave without a traceback."""
    shutil.copytree(template, folder / "state")
    server = BenchServer(folder / "state", folder / "server.log", SITE, options)
    server.start()
    try:
        yield server
    finally:
        status = server.stop()
        log = server.log_text()
    assert status == 0, log
    assert "Traceback" not in log, log


def prepare_state(folder: Path, *options: str) -> Path:
    """A state folder with keys, menu and terminals t-0001 to t-0004 on tables 1 to 4."""
    server = BenchServer(folder / "state", folder / "first.log", SITE, options)
    server.start()
    for number in range(1, 5):
        server.admin(
            "devices", "add", f"t-000{number}", "--table", str(number), "--key",
            str(KEYS / f"t-000{number}.spki.der"), "--password", PASSWORD,
        )  # fmt: skip
    assert server.stop() == 0
    return folder / "state"


def terminal(number: int = 1) -> SoftTerminal:
    """The software terminal with a fixture key."""
    name = f"t-000{number}"
    made = SoftTerminal.from_pem(SITE, name, str(number), PASSWORD, KEYS / f"{name}.pem", ROOT_SPKI)
    _made.append(made)
    return made


async def online(server: BenchServer, number: int = 1, *, clean: bool = True) -> SoftTerminal:
    """A fixture terminal that is connected and has a session."""
    made = terminal(number)
    await bring_online(server, made, clean=clean)
    return made


async def bring_online(server: BenchServer, made: SoftTerminal, *, clean: bool = True) -> None:
    """Connect a terminal and shake hands.

    A login may be refused until the server has noticed that the terminal was let in (within 1 s).
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + 10
    while True:
        devices = Ledger(server.state).devices(SITE)
        made.handshake = next(d.handshake for d in devices if d.device == made.device)
        try:
            await made.connect(server.host, server.port, clean=clean)
            break
        except LinkError:
            if loop.time() > end:
                raise
            await asyncio.sleep(NOTICE_S)
    await made.hello()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario to its end, then close what it left open."""

    async def whole() -> None:
        try:
            await asyncio.wait_for(scenario, 60)
        finally:
            while _made:
                _made.pop().vanish()
            await asyncio.sleep(0.01)

    asyncio.run(whole())


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until something the server does on its own has happened."""
    end = time.monotonic() + SEEN_WITHIN_S
    pause = 0.005
    while not condition():
        assert time.monotonic() < end, f"not within {SEEN_WITHIN_S:g} s: {what}"
        time.sleep(pause)
        pause = min(0.1, pause * 2)


async def soon(condition: Callable[[], bool], what: str) -> None:
    """Like ``eventually``, inside a scenario."""
    await asyncio.get_running_loop().run_in_executor(None, eventually, condition, what)


def refusals(server: BenchServer, code: str) -> int:
    """How often the server counted a refusal, over all devices."""
    return sum(n for (_, _, found), n in Ledger(server.state).refusals(SITE).items() if found == code)


__all__ = [
    "LinkError",
    "a_server",
    "bring_online",
    "eventually",
    "online",
    "prepare_state",
    "refusals",
    "run",
    "soon",
    "terminal",
]
