"""One kill campaign: a restaurant of real processes that are killed again and again, then judged.

    process boards (MicroPython) --MQTT--> order server <--HTTP-- staff
             kill -9                         kill -9

Every life of the server ends in a kill: at the n-th pass of a commit boundary, or at a random moment. Boards
are killed in between and keep their flash. At the end everything is drained, and the store is judged by the
history checker against what guests and staff were told.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import provision
from bench.boards import catalogue
from bench.boards.base import Board
from bench.errors import BenchError
from bench.history.check import check
from bench.history.events import History, Violation
from bench.history.read import read_books
from bench.kill.diners import Diner
from bench.kill.site import SITE, Site
from bench.kill.till import Till
from bench.kill.verdict import Verdict
from bench.kill.words import POINTS
from bench.sim.house import demo_menu, prices
from bench.staff import Action

COUNTED = (1, 3, 20)
SPARE_TABLES = ("101", "102", "103")
BACKOFF_MS = 250
LONGEST_LIFE_S = 3.0
SHORTEST_LIFE_S = 0.15
LONGEST_FUSE_S = 6.0
PASSES = {"begin": 20.0, "commit": 20.0, "committed": 20.0}  # on average; those around answers: 4
SETTLE_S = 60.0
TELL_EVERY_S = 5.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to do; ``planted`` names bugs of the catalogue that the server shall have."""

    kills: int
    seed: int
    budget_s: float | None = None
    boards: int = 3
    database: str = "sqlite"
    broker: str = "amqtt"
    planted: tuple[str, ...] = ()
    points: tuple[str, ...] = tuple(POINTS)
    random_share: float = 0.25  # of the server's kills that fall at any moment

    @property
    def replay(self) -> str:
        """The command that plays this plan again."""
        words = [f"tableside bench kill --kills {self.kills} --seed {self.seed}"]
        if self.budget_s is not None:
            words.append(f"--budget {self.budget_s:g}s")
        if self.boards != 3:
            words.append(f"--boards {self.boards}")
        if self.database != "sqlite":
            words.append(f"--database {self.database}")
        if self.broker != "amqtt":
            words.append(f"--broker {self.broker}")
        words += [f"--plant {name}" for name in self.planted]
        if self.points != tuple(POINTS):
            words += [f"--at {name}" for name in self.points]
        return " ".join(words)


class Campaign:
    """The restaurant of one campaign in ``folder``; use it as a context."""

    def __init__(self, plan: Plan, folder: Path, say: Say) -> None:
        self.plan = plan
        self.killed: Counter[str] = Counter()
        self._folder = folder
        self._say = say
        self._random = random.Random(plan.seed)
        self._menu = demo_menu()
        self._stack = ExitStack()
        self._diners: list[Diner] = []
        self._next_board_s = 0.0

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ------------------------------------------------------------------ opening

    def run(self) -> Verdict:
        """Open, kill, drain, judge. Raises: BenchError."""
        begun = time.monotonic()
        self._open()
        self._kill_until_done(begun)
        troubles = self._drain()
        self._victim.stop()
        history = self._history()
        violations = [Violation("TROUBLE", text) for text in troubles] + check(history)
        if any(violation.code == "TROUBLE" for violation in violations):
            history.finished = False
        done = sum(1 for acted in history.acted if acted.lsn)
        return Verdict(
            sum(self.killed.values()),
            self.killed,
            len(history.orders),
            len({(seen.device, seen.op_id) for seen in history.replied}) + done,
            violations,
            self.plan.replay,
            time.monotonic() - begun,
        )

    def _open(self) -> None:
        firmware = catalogue.firmware_for("process", self._say)
        plan = self.plan
        self._site = Site(self._folder, plan.database, plan.broker, plan.planted, self._stack)
        self._victim = self._site.victim
        self._till = Till(
            plan.seed,
            self._site.register(plan.boards, SPARE_TABLES),
            lambda: self._victim.http_port,
            self._site.rows,
            [*map(str, range(1, plan.boards + 1)), *SPARE_TABLES],
            COUNTED,
        )
        self._stack.callback(self._till.abandon)
        for item in COUNTED:
            self._till.act(Action("stock", {"item": item, "count": 10}))
        for number in range(1, plan.boards + 1):
            diner = Diner(self._board(number, firmware), self._menu, plan.seed)
            self._stack.callback(diner.leave)
            self._diners.append(diner)
        for diner in self._diners:
            diner.terminal.boot()
        for diner in self._diners:
            diner.terminal.online()
            diner.begin()
        self._till.begin()

    def _board(self, number: int, firmware: catalogue.Firmware | None) -> Board:
        who = provision.identity(number, SITE)
        board = catalogue.make(
            catalogue.BoardRequest("process"), firmware, who.device, self._folder / "boards"
        )
        self._stack.callback(board.close)
        port = self._site.mqtt_port
        provision.provision(board, who, provision.Endpoint("127.0.0.1", port))
        board.boot_options = {
            "host": "127.0.0.1", "port": port, "backoff_ms": BACKOFF_MS, "telemetry_s": 0, "watchdog_ms": 0,
        }  # fmt: skip
        return board

    # ------------------------------------------------------------------ killing

    def _kill_until_done(self, begun: float) -> None:
        told = begun
        deadline = None if self.plan.budget_s is None else begun + self.plan.budget_s
        self._next_board_s = time.monotonic() + self._random.expovariate(1 / 4.0)
        while (kills := sum(self.killed.values())) < self.plan.kills:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                break
            if now - told >= TELL_EVERY_S:
                told = now
                self._tell(now - begun, kills)
            self._one_life()
        if not self._victim.alive and not self._victim.start():
            raise BenchError("SERVER_START", "The order server does not come up after its last kill.")

    def _one_life(self) -> None:
        """From this start of the server to its kill."""
        if not self._victim.alive:
            point, passes = self._end()
            if not self._victim.start(point, passes):
                self.killed[point] += 1
                return
        else:
            point = ""
        lasts_s = self._random.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S)
        ends = time.monotonic() + (LONGEST_FUSE_S if point else lasts_s)
        while not self._victim.wait(min(ends, self._next_board_s) - time.monotonic()):
            now = time.monotonic()
            if now >= self._next_board_s:
                self._kill_beside()
                self._next_board_s = now + self._random.expovariate(1 / 4.0)
            if now >= ends:
                self._victim.kill()
                self.killed["random"] += 1
                return
        self.killed[point] += 1

    def _kill_beside(self) -> None:
        """Something that is not the server loses its life: a terminal, or the database or broker beside."""
        part = self._random.choice(["board", *self._site.parts])
        if part == "board":
            self._random.choice(self._diners).cut()
        else:
            self._site.kill(part)
        self.killed[part] += 1

    def _end(self) -> tuple[str, int]:
        """How the next life ends: at the n-th pass of a point, or ("", 1) at a random moment."""
        if self._random.random() < self.plan.random_share:
            return "", 1
        point = self._random.choice(self.plan.points)
        return point, 1 + int(self._random.expovariate(1 / PASSES.get(point, 4.0)))

    def _tell(self, seconds: float, kills: int) -> None:
        at_points = sum(count for name, count in self.killed.items() if name in POINTS)
        ordered = sum(len(diner.submitted) for diner in self._diners)
        self._say(
            f"{seconds:6.0f} s  {kills} kills ({at_points} at a commit boundary, {self.killed['board']} of "
            f"boards), {ordered} ops, {len(self._till.acted)} changes by staff"
        )

    # ------------------------------------------------------------------ judging

    def _drain(self) -> list[str]:
        """No more wishes, no more kills: everything queued is answered. Returns what went wrong."""
        for diner in self._diners:
            diner.stop()
        self._till.stop()
        troubles = self._till.troubles + [text for diner in self._diners for text in diner.troubles]
        deadline = time.monotonic() + SETTLE_S
        for diner in self._diners:
            if not diner.settle(max(1.0, deadline - time.monotonic())):
                troubles.append(f"{diner.device} still has unanswered ops after {SETTLE_S:g} s")
        return troubles

    def _history(self) -> History:
        history = History(menus={self._menu.version: prices(self._menu)})
        read_books(self._site.rows, history)
        stored: dict[str, list[bytes]] = {}
        for answer in history.answers:
            stored.setdefault(answer.device, []).append(answer.op_id)
        for diner in self._diners:
            diner.resolve(stored.get(diner.device, ()))
        history.submitted = [op for diner in self._diners for op in diner.submitted]
        history.replied = [seen for diner in self._diners for seen in diner.replied()]
        history.acted = self._till.acted
        return history


def points_in_words(killed: Mapping[str, int]) -> Sequence[str]:
    """Where the kills fell, a line each."""
    meaning = {**POINTS, "random": "the server at a random moment", "board": "a terminal's power",
               "database": "the whole database server", "broker": "the broker beside"}  # fmt: skip
    return [f"{killed[name]:6}  {name:10} {text}" for name, text in meaning.items() if killed.get(name)]
