"""A terminal as a guest and a waiter know it: switch it on, see it come online, order, get an answer.

Speaks the console protocol of bench/console.py; commands and events are those of terminal/console.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.boards.base import Board
from bench.console import Event, Json

BOOT_DEADLINE_S = 20.0
ONLINE_DEADLINE_S = 60.0
REPLY_DEADLINE_S = 30.0

COMMITTED, REPRICE, SOLD_OUT, TABLE_CLOSED, REJECTED = 0, 1, 2, 3, 5
OrderLine = tuple[int, int, Sequence[int]]  # item id, quantity, modifier ids
ESPRESSO: OrderLine = (1, 1, ())


@dataclass(frozen=True)
class Reply:
    """The final answer to one op, as the terminal reported it; `ms` from queued to answered."""

    op: str
    status: int
    arg: int
    order: int
    total_minor: int
    lsn: int
    ms: float


class Terminal:
    """One provisioned board."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.console = board.console

    # ------------------------------------------------------------------ life

    def boot(self, deadline_s: float = BOOT_DEADLINE_S) -> Event:
        """Power on (or cycle) and wait until journal and menu are open; returns the @boot event."""
        since = self.console.mark()
        self.board.power.cycle()
        boot = self.console.event("boot", since=since, deadline_s=deadline_s)
        self.console.event("ready", since=since, deadline_s=deadline_s)
        return boot

    @property
    def is_online(self) -> bool:
        """True when the newest word on the matter is that the session stands."""
        if not self.board.power.is_on:
            return False
        for event in reversed(self.console.events()):
            if event.name in ("session", "online", "offline", "boot"):
                return event.name in ("session", "online")
        return False

    def online(self, deadline_s: float = ONLINE_DEADLINE_S) -> None:
        """Make sure the terminal is on, has a session and the menu of the day.

        Raises: DeadlinePassed, ConsoleClosed.
        """
        if not self.board.power.is_on:
            self.boot()
        if not self.is_online:
            since = self._last_boot()
            self.console.event("session", since=since, deadline_s=deadline_s)

    def await_session(self, since: int, deadline_s: float = ONLINE_DEADLINE_S) -> Event:
        """Wait for a session made after event index `since`."""
        return self.console.event("session", since=since, deadline_s=deadline_s)

    def _last_boot(self) -> int:
        boots = self.console.events("boot")
        return boots[-1].index if boots else 0

    # ------------------------------------------------------------------ ordering

    def queue(self, lines: Sequence[OrderLine] = (ESPRESSO,), **options: Any) -> str:
        """Order without waiting for the answer; returns the op id as hex once the journal has it.

        Raises: RpcRefused with the terminal's reason (unknown item, journal full, ...).
        """
        answer = self.rpc(
            "order", lines=[[item, count, list(mods)] for item, count, mods in lines], **options
        )
        return str(answer["op"])

    def reply(self, op: str, deadline_s: float = REPLY_DEADLINE_S) -> Reply:
        """Wait for the final answer to an op, across power cycles."""
        event = self.console.event(
            "reply",
            where=lambda data: data.get("op") == op,
            deadline_s=deadline_s,
            over_resets=True,
        )
        data = event.data
        return Reply(
            op,
            int(data["status"]),
            int(data["arg"]),
            int(data["order"]),
            int(data["total"]),
            int(data["lsn"]),
            float(data.get("ms", 0)),
        )

    def order(self, lines: Sequence[OrderLine] = (ESPRESSO,), deadline_s: float = REPLY_DEADLINE_S) -> Reply:
        """Order and wait for the answer."""
        return self.reply(self.queue(lines), deadline_s)

    def rpc(self, do: str, **arguments: Any) -> Json:
        """Any console command."""
        return self.console.rpc(do, **arguments)
