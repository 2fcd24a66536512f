"""The bench's composition root: server, hostile link and boards in one folder, all taken down at the end.

    terminal --> hostile link --> order server
                     the rig starts all three

Nothing here has a fixed port or a fixed path, so two benches can run side by side.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import provision
from bench.boards import catalogue
from bench.boards.base import Board, Identity
from bench.errors import BenchError
from bench.faults.link import Link
from bench.impostor import Impostor, LoginRefused
from bench.measure import Measurement, measurement
from bench.mosquitto import PrivateMosquitto
from bench.paths import RUNS
from bench.server import BenchServer
from bench.terminal import Terminal
from bench.wait import until
from server.wire.rsa import Signer

RECONNECT_WITHIN_MS = 2000  # on the bench nobody waits a quarter of a minute for a broker
NOTICE_S = 0.3  # a running server looks for changes every 250 ms
TELLING_BROKER = "telling-broker"  # ours refuses foreign topics by code and counts; mosquitto keeps silent
IMPOSTOR_HANDSHAKES = 10_000  # handshake counters of successive impostors never meet


@dataclass(frozen=True)
class RigOptions:
    """What to put on the bench."""

    board: catalogue.BoardRequest = field(default_factory=catalogue.BoardRequest)
    seed: int = 1
    site: str = "demo"
    table: str | None = None
    server_options: tuple[str, ...] = ("--beacon-interval", "5")
    mosquitto: bool = False


def make_run_dir(seed: int, runs: Path | None = None) -> Path:
    """A folder of its own for one run: build/runs/<UTC time>-<seed>."""
    runs = runs or RUNS
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f".{n}" for n in range(1, 100))):
        folder = runs / f"{stamp}-{seed}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise BenchError("NO_RUN_FOLDER", f"Too many runs in {runs} in this second: try again.")


class Rig:
    """Parts are made when first asked for: a suite that needs no server starts none."""

    def __init__(
        self, options: RigOptions, folder: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.measurements: list[Measurement] = []
        self._say = say
        self._stack = ExitStack()
        self._firmware: catalogue.Firmware | None = None
        self._firmware_known = False
        self._server: BenchServer | None = None
        self._link: Link | None = None
        self._terminals: dict[str, Terminal] = {}
        self._registered: set[str] = set()
        self._handshakes = 0

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take everything down, whatever state it is in."""
        self._stack.close()

    def start(self) -> None:
        """Start server and link now: if that fails it is one sentence, not a failure of every case.

        Raises: BenchError.
        """
        _ = self.link

    # ------------------------------------------------------------------ parts

    @property
    def firmware(self) -> catalogue.Firmware | None:
        """The image under test, built on first use; None for a board that carries its own."""
        if not self._firmware_known:
            self._firmware = catalogue.firmware_for(self.options.board.kind, self._say)
            self._firmware_known = True
        return self._firmware

    @property
    def server(self) -> BenchServer:
        """The order server, running unless a case stopped it."""
        if self._server is None:
            self._server = BenchServer(
                self.folder / "server",
                self.folder / "server.log",
                self.options.site,
                self.options.server_options,
                broker=PrivateMosquitto(self.folder / "broker") if self.options.mosquitto else None,
            )
            self._stack.callback(self._server.stop)
            self._server.start()
        return self._server

    @property
    def link(self) -> Link:
        """The hostile link in front of the server's broker."""
        if self._link is None:
            server = self.server
            self._link = Link(server.host, server.port).start()
            self._stack.callback(self._link.close)
        return self._link

    @property
    def terminal(self) -> Terminal:
        """The first terminal: t-0001, provisioned, registered, behind the link; off until a case boots it."""
        return self.terminal_number(1)

    @property
    def board(self) -> Board:
        """The first terminal's board."""
        return self.terminal.board

    def terminal_number(self, number: int, icount_shift: int | None = None) -> Terminal:
        """The n-th terminal (from 1), made on first use; `icount_shift` gives it exact virtual time."""
        who = provision.identity(number, self.options.site, self.options.table if number == 1 else None)
        if who.device not in self._terminals:
            board = self.bare_board(who.device, icount_shift)
            self.adopt(board, who)
            self._terminals[who.device] = Terminal(board)
        return self._terminals[who.device]

    def impostor(self, number: int = 8, signer: Signer | None = None) -> Impostor:
        """A registered terminal made of nothing but keys; with `signer` its key is a false one."""
        who = provision.identity(number, self.options.site)
        if who.device not in self._registered:
            self._register(who)
        self._handshakes += IMPOSTOR_HANDSHAKES
        return Impostor(self.server.port, who, self._handshakes, signer)

    def _register(self, who: Identity) -> None:
        if who.device not in self._registered:
            self.server.register(who)
            self._registered.add(who.device)
        until(lambda: self._may_log_in(who), f"{who.device} may log in", every_s=NOTICE_S)

    def _may_log_in(self, who: Identity) -> bool:
        try:
            with Impostor(self.server.port, who):
                return True
        except LoginRefused:
            return False

    def bare_board(self, name: str, icount_shift: int | None = None) -> Board:
        """A board that nobody has provisioned, off."""
        request = self.options.board
        if icount_shift is not None:
            request = replace(request, icount_shift=icount_shift)
        board = catalogue.make(request, self.firmware, name, self.folder)
        self._stack.callback(board.close)
        return board

    def adopt(self, board: Board, who: Identity) -> None:
        """Provision a board, register it with the server and point it at the hostile link."""
        if board.flash is not None:
            provision.provision(board, who, provision.Endpoint(board.link.host_address, self.link.port))
        board.identity = who
        board.boot_options = {
            "host": board.link.host_address,
            "port": self.link.port,
            "agent": True,
            "backoff_ms": RECONNECT_WITHIN_MS,
            "seed": self.options.seed,
        }
        self._register(who)

    @property
    def terminals(self) -> Sequence[Terminal]:
        """Every terminal made so far."""
        return list(self._terminals.values())

    # ------------------------------------------------------------------ for the suites

    def measure(
        self,
        name: str,
        value: float,
        unit: str,
        limit: str | None = None,
        samples: Sequence[float] = (),
        note: str = "",
    ) -> Measurement:
        """Record a figure; outside its limit it fails the suite."""
        figure = measurement(name, value, unit, limit, samples, note)
        self.measurements.append(figure)
        return figure

    def settle(self) -> None:
        """Between cases: an honest link and a running server, whatever the last case did."""
        if self._link is not None:
            self._link.clear()
        if self._server is not None and not self._server.running:
            self._server.start()

    def recover(self) -> None:
        """After a failed case: settle, and switch every terminal off, so that the next case boots it anew."""
        self.settle()
        for terminal in self.terminals:
            terminal.board.power.off()

    @property
    def features(self) -> frozenset[str]:
        """What the chosen kind of board declares, and what the chosen broker tells."""
        board = catalogue.kind(self.options.board.kind).features
        return board if self.options.mosquitto else board | {TELLING_BROKER}

    @property
    def set_up(self) -> str:
        """What was chosen, for people."""
        return f"board {self.options.board.kind}{' with mosquitto' if self.options.mosquitto else ''}"

    def console_tail(self, chars: int) -> str:
        """The end of every terminal's console, for a report."""
        parts = [f"--- {t.board.name}\n{t.console.transcript[-chars:]}" for t in self.terminals]
        return "\n".join(parts)

    def keep_evidence(self, name: str) -> Path:
        """Keep what explains a failure: flash images and what went over the link. Returns the folder."""
        folder = self.folder / "failures" / name
        folder.mkdir(parents=True, exist_ok=True)
        for terminal in self.terminals:
            if terminal.board.flash is not None:
                terminal.board.flash.snapshot(folder / f"{terminal.board.name}.flash")
        if self._link is not None:
            lines = (json.dumps(_capture_to_json(c)) for c in self._link.captures[-2000:])
            (folder / "capture.jsonl").write_text("\n".join(lines) + os.linesep)
        return folder


def _capture_to_json(capture: Any) -> dict[str, Any]:
    return {
        "at_s": round(capture.at_s, 6),
        "direction": capture.direction.value,
        "client": capture.client,
        "topic": capture.publish.topic,
        "qos": capture.publish.qos,
        "payload": capture.publish.payload.hex(),
    }
