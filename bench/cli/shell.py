"""`tableside bench shell`: a terminal of your own, with its server, in one command.

The console is passed through; the machine's lines (`@event`, `=answer`) are kept from the screen, and every
committed order is shown once more as the kitchen sees it, from the server's ledger. Ctrl-] leaves. With stdin
from a pipe the lines are typed one by one and the shell ends when every order has its answer.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from bench.boards.catalogue import BoardRequest
from bench.console import Console
from bench.errors import BenchError, CaseFailed
from bench.paths import DEMO_MENU
from bench.rig import Rig, RigOptions, make_run_dir
from bench.terminal import COMMITTED, Terminal

EXAMPLES = """examples:
  tableside bench shell
  printf 'order 2x espresso\\n' | tableside bench shell --board process"""
LEAVE = b"\x1d"
ANSWER_DEADLINE_S = 60.0
LINE_DEADLINE_S = 15.0
_POLL_S = 0.2  # how often the ledger's news are looked for while nobody types


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `shell` to the verbs of `bench`."""
    parser = verbs.add_parser(
        "shell",
        help="boot a terminal with its own server and order by hand",
        description="Boots a terminal against a server of its own and hands you its console. Ctrl-] leaves.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--board", default="qemu", choices=("qemu", "process"), help="kind of board (default: qemu)"
    )
    parser.add_argument("--table", default="4", help="the terminal's table (default: 4)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot, connect, hand over.

    Raises: BenchError, CaseFailed when terminal or server do not come up.
    """
    options = RigOptions(BoardRequest(arguments.board), table=arguments.table)
    with Rig(options, make_run_dir(options.seed), print) as rig:
        print(f"Starting an order server and a {arguments.board} terminal ...", flush=True)
        terminal = rig.terminal
        screen = Screen()
        terminal.console.tee(screen.take)
        terminal.boot()
        terminal.online()
        print(f"\nThis is terminal {terminal.board.name} at table {arguments.table}. Try:  order 2x espresso")
        print(
            "`menu` shows what there is, `help` the rest. " + ("Ctrl-] leaves." if sys.stdin.isatty() else "")
        )
        screen.open = True
        kitchen = Kitchen(rig, terminal)
        if sys.stdin.isatty():
            _interactive(terminal.console, kitchen)
        else:
            _from_pipe(terminal, kitchen)
        print(f"\nartefacts: {rig.folder}")
    return 0


class Screen:
    """Passes a console through to stdout without the lines meant for machines."""

    def __init__(self) -> None:
        self.open = False
        self._line_start = True
        self._swallow = False

    def take(self, data: bytes) -> None:
        """One chunk from the board."""
        out = bytearray()
        for byte in data:
            if self._line_start:
                self._swallow = byte in b"@="
            if not self._swallow:
                out.append(byte)
            self._line_start = byte == 0x0A
        if self.open and out:
            sys.stdout.buffer.write(out)
            sys.stdout.buffer.flush()


class Kitchen:
    """Shows each newly committed order as the server's ledger has it."""

    def __init__(self, rig: Rig, terminal: Terminal) -> None:
        self._ledger = rig.server.ledger
        self._site = rig.options.site
        self._console = terminal.console
        self._seen = self._console.mark()
        self._last_order = 0
        self._names = {item["id"]: item["name"] for item in json.loads(DEMO_MENU.read_text())["items"]}

    def look(self, newline: str = "\n") -> None:
        """Print what was committed since the last look; reads the ledger only after a committed reply."""
        news = self._console.events("reply", self._seen)
        self._seen = self._console.mark()
        if not any(event.data.get("status") == COMMITTED for event in news):
            return
        for order in self._ledger.orders(self._site, after=self._last_order):
            self._last_order = order.order_number
            lines = ", ".join(
                f"{line.quantity} x {self._names.get(line.item, line.item)}" for line in order.lines
            )
            total = f"{order.total_minor // 100}.{order.total_minor % 100:02}"
            print(
                f"{newline}[kitchen] order {order.order_number}, table {order.table}: {lines}, total {total}",
                end=newline,
                flush=True,
            )


@contextmanager
def _raw_terminal(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)  # what was typed already stays
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _interactive(console: Console, kitchen: Kitchen) -> None:
    fd = sys.stdin.fileno()
    with _raw_terminal(fd):
        while console.attached:
            if select.select([fd], [], [], _POLL_S)[0]:
                typed = os.read(fd, 1024)
                if not typed or LEAVE in typed:
                    return
                console.write(typed)
            kitchen.look("\r\n")


def _from_pipe(terminal: Terminal, kitchen: Kitchen) -> None:
    for line in sys.stdin:
        if line.strip():
            _type(terminal, line.strip())
            kitchen.look()
    for event in terminal.console.events("queued"):
        terminal.reply(str(event.data["op"]), ANSWER_DEADLINE_S)
    kitchen.look()


def _type(terminal: Terminal, line: str) -> None:
    """Type a line; done when the terminal answers the ping that follows it (its console works in order)."""
    terminal.console.line(line)
    try:
        terminal.console.rpc("info", deadline_s=LINE_DEADLINE_S)
    except CaseFailed as error:
        raise BenchError("CONSOLE", f"The terminal stopped answering: {error}") from error
