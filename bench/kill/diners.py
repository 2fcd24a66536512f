"""Guests at real terminals: each orders, changes, cancels, asks for the bill and seals it, over every kill.

What a guest asked for is known when the console answers. Where the power goes first, the op may be in the
journal or not: it is a *doubt* of that power-on, and what is found stored from it later is taken for it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.boards.base import Board
from bench.errors import ConsoleClosed, DeadlinePassed, RpcRefused
from bench.history.events import Line, Replied, Reply, Submitted
from bench.sim.house import order_lines
from bench.sim.randomness import Seeded
from bench.terminal import Terminal
from server.wire.menus import Menu

PAUSE_S = (0.02, 0.25)
MOST_PENDING = 24
RPC_S = 30.0
OFF_S = 0.2


@dataclass(slots=True)
class Doubt:
    """An op whose queueing nobody saw; ``boot`` is the power-on it belongs to."""

    boot: int
    op: Submitted


class Diner:
    """The guests at one terminal, in a thread of their own until ``stop``."""

    def __init__(self, board: Board, menu: Menu, seed: int) -> None:
        assert board.identity is not None
        self.device = board.identity.device
        self.table = board.identity.table
        self.terminal = Terminal(board)
        self.submitted: list[Submitted] = []
        self.doubts: list[Doubt] = []
        self.troubles: list[str] = []
        self._menu = menu
        self._random = Seeded(seed, self.device)
        self._ordered: list[str] = []
        self._waits_for_bill = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"guests-{self.device}", daemon=True)

    def begin(self) -> None:
        """Guests come in."""
        self._thread.start()

    def stop(self) -> None:
        """Let nobody order any more."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def leave(self) -> None:
        """Nobody waits for an answer any more: power off."""
        self._stopping.set()
        self.terminal.board.power.off()
        self.stop()

    def cut(self) -> None:
        """The terminal loses its power for a moment."""
        self.terminal.board.power.off()
        self.terminal.board.power.on()

    # ------------------------------------------------------------------ ordering

    def _run(self) -> None:
        draw = self._random.draw
        while not self._stopping.wait(draw.uniform(*PAUSE_S)):
            try:
                self._once(draw)
            except (ConsoleClosed, DeadlinePassed):
                self._stopping.wait(OFF_S)
            except RpcRefused as refusal:
                if refusal.code not in ("OUTBOX_FULL", "JOURNAL_FULL", "NO_MENU", "NO_BILL", "UNSEALED"):
                    self.troubles.append(f"{self.device}: {refusal}")

    def _once(self, draw: random.Random) -> None:
        pending = len(self.terminal.rpc("orders", deadline_s=RPC_S)["pending"])
        if pending > MOST_PENDING:
            return
        if self._waits_for_bill:
            if pending == 0:
                self._waits_for_bill = False
                self._pay()
            return
        kind = draw.choices(("order", "change", "cancel", "waiter", "bill"), (80, 9, 5, 2, 4))[0]
        if not self._ordered and kind in ("change", "cancel"):
            kind = "order"
        lines = order_lines(self._menu, self._random) if kind in ("order", "change") else []
        arguments: dict[str, Any] = {"lines": lines} if lines else {}
        if kind in ("change", "cancel"):
            arguments["op"] = draw.choice(self._ordered)
        op = self._ask(kind, arguments, lines)
        if kind == "order":
            self._ordered = [*self._ordered[-4:], op]
        self._waits_for_bill = kind == "bill"

    def _pay(self) -> None:
        claim = self.terminal.rpc("claim", deadline_s=RPC_S)
        self._ask("pay", {}, (), claim)

    def _ask(
        self, kind: str, arguments: dict[str, Any], lines: Sequence[Any], claim: dict[str, Any] | None = None
    ) -> str:
        """Have the terminal queue an op; returns its id as hex."""
        wanted: tuple[Line, ...] = tuple((item, count, tuple(chosen)) for item, count, chosen in lines)
        op = Submitted(
            time.monotonic(), self.device, b"", self.table, self._menu.version, self._price(wanted), wanted,
            kind="call" if kind == "waiter" else kind,
            target=bytes.fromhex(arguments.get("op", "")),
        )  # fmt: skip
        if claim is not None:
            op = replace(
                op, total_minor=claim["total"], bill=claim["bill"], target=bytes.fromhex(claim["last"])
            )
        boot = self._boot()
        try:
            answer = self.terminal.rpc(kind, deadline_s=RPC_S, **arguments)
        except (ConsoleClosed, DeadlinePassed):
            self.doubts.append(Doubt(boot, op))
            raise
        total = int(answer.get("total", op.total_minor))
        if total != op.total_minor:
            self.troubles.append(f"{self.device}: {wanted} cost {total} here, {op.total_minor} on the menu")
        self.submitted.append(replace(op, op_id=bytes.fromhex(answer["op"])))
        return str(answer["op"])

    def _price(self, lines: Sequence[Line]) -> int:
        items = {item.id: item.price_minor for item in self._menu.items}
        deltas = {m.id: m.delta_minor for group in self._menu.groups for m in group.modifiers}
        return sum(n * (items[item] + sum(deltas[m] for m in chosen)) for item, n, chosen in lines)

    def _boot(self) -> int:
        boots = self.terminal.console.events("boot")
        return int(boots[-1].data["boots"]) if boots else 0

    # ------------------------------------------------------------------ afterwards

    def settle(self, within_s: float) -> bool:
        """Wait until the outbox is empty; False when it is not in time."""
        try:
            self.terminal.rpc("wait", deadline_s=within_s + 5, **{"for": "idle", "ms": int(within_s * 1000)})
        except (RpcRefused, ConsoleClosed, DeadlinePassed):
            return False
        return True

    def replied(self) -> list[Replied]:
        """Every final answer the terminal accepted."""
        return [
            Replied(event.at_s, self.device, bytes.fromhex(event.data["op"]), _reply(event.data))
            for event in self.terminal.console.events("reply")
        ]

    def resolve(self, stored: Sequence[bytes]) -> None:
        """Of the ops stored under this terminal's name: those that only a doubt explains."""
        known = {op.op_id for op in self.submitted}
        for op_id in stored:
            if op_id in known:
                continue
            boot = int.from_bytes(op_id[:4], "big")
            doubt = next((one for one in self.doubts if one.boot == boot), None)
            if doubt is not None:
                self.doubts.remove(doubt)
                self.submitted.append(replace(doubt.op, op_id=op_id, told=False))


def _reply(data: dict[str, Any]) -> Reply:
    status, arg, number, total, lsn = (int(data[k]) for k in ("status", "arg", "order", "total", "lsn"))
    return Reply(status, arg, number, total, lsn)
