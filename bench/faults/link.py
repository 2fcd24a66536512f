"""The hostile link: a TCP proxy between terminals and their broker that understands MQTT and obeys the bench.

It runs an event loop in a thread of its own; every public method may be called from any other thread. Bytes
are forwarded packet by packet; a PUBLISH first passes the rules (bench/faults/rules.py), and the first that
claims it treats it. Packet identifiers the link invents count down from 65535, far from those of both ends.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bench.errors import BenchError, DeadlinePassed
from bench.faults.mqtt import (
    CONNECT,
    PUBACK,
    PUBLISH,
    NotMqtt,
    Packet,
    Publish,
    Splitter,
    client_id,
    matches,
    parse_publish,
    puback,
)
from bench.faults.rules import Action, Direction, Hold, Outcome, Rule

T = TypeVar("T")
UP, DOWN = Direction.UP, Direction.DOWN
_LAST_PACKET_ID = 65535
_CAPTURE_LIMIT = 200_000
_STOP_DEADLINE_S = 5.0


@dataclass(frozen=True)
class Capture:
    """One PUBLISH as it came in, before any rule: when (monotonic), whose, which way."""

    at_s: float
    direction: Direction
    client: str
    publish: Publish


@dataclass(frozen=True)
class FatalPacket:
    """The packet that ends its connection: the n-th, either way, counted from when it was chosen."""

    number: int
    arrives: bool


class Tap:
    """What of a direction and topic passes from the moment the tap is set."""

    def __init__(self, link: Link, direction: Direction, topic: str) -> None:
        self._link = link
        self._direction = direction
        self._topic = topic
        self._start = len(link.captures)

    @property
    def seen(self) -> list[Capture]:
        """The captures so far."""
        return [
            c
            for c in self._link.captures[self._start :]
            if c.direction is self._direction and matches(self._topic, c.publish.topic)
        ]

    def wait(self, count: int = 1, deadline_s: float = 20.0) -> list[Capture]:
        """Wait until `count` have passed.

        Raises: DeadlinePassed.
        """
        self._link.wait_until(
            lambda: len(self.seen) >= count,
            deadline_s,
            lambda: f"{count} packets {self._direction.value} on {self._topic} (saw {len(self.seen)})",
        )
        return self.seen


class _Session:
    """One terminal's connection and its twin to the broker."""

    def __init__(self, link: Link, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter) -> None:
        self.link = link
        self.client = "?"
        self.writers = {DOWN: to_client, UP: to_server}
        self.own_ids: dict[Direction, set[int]] = {UP: set(), DOWN: set()}
        self._ended = False

    async def pump(self, direction: Direction, reader: asyncio.StreamReader) -> None:
        """Carry one direction until either side ends."""
        splitter = Splitter()
        while data := await reader.read(65536):
            for packet in splitter.feed(data):
                await self.link.thawed.wait()
                self._pass(direction, packet)
            await self.writers[direction].drain()

    def _pass(self, direction: Direction, packet: Packet) -> None:
        if self._ended:
            return
        fatal = self.link.count_packet(packet)
        if fatal is not None and not fatal.arrives:
            self._ended = True
            self.abort()
            return
        self._carry(direction, packet)
        if fatal is not None:
            self._ended = True
            for writer in self.writers.values():
                writer.close()  # what was written still arrives

    def _carry(self, direction: Direction, packet: Packet) -> None:
        if packet.kind == CONNECT and direction is UP:
            self.client = client_id(packet)
        if packet.kind == PUBACK:
            acknowledged = int.from_bytes(packet.body[:2], "big")
            if acknowledged in self.own_ids[_other(direction)]:
                self.own_ids[_other(direction)].discard(acknowledged)
                return
        if packet.kind != PUBLISH:
            self.writers[direction].write(packet.raw)
            return
        publish = parse_publish(packet)
        self.link.note(Capture(time.monotonic(), direction, self.client, publish))
        outcome = self.link.judge(direction, publish)
        if outcome is None:
            self.writers[direction].write(packet.raw)
            return
        if outcome.acknowledge and publish.qos:
            self.writers[_other(direction)].write(puback(publish.packet_id))
        if outcome.delay_s:
            asyncio.get_running_loop().call_later(outcome.delay_s, self._emit, direction, outcome)
        else:
            self._emit(direction, outcome)

    def _emit(self, direction: Direction, outcome: Outcome) -> None:
        writer = self.writers[direction]
        if writer.is_closing():
            return
        if outcome.forward is not None:
            writer.write(outcome.forward.encode())
        for extra in outcome.extra:
            self.send(direction, extra)

    def send(self, direction: Direction, publish: Publish) -> None:
        """Send a PUBLISH of the link's own; its PUBACK goes no further than here."""
        packet_id = self.link.next_packet_id() if publish.qos else 0
        if packet_id:
            self.own_ids[direction].add(packet_id)
        self.writers[direction].write(replace(publish, packet_id=packet_id, dup=False).encode())

    def abort(self) -> None:
        """Reset both connections."""
        for writer in self.writers.values():
            writer.transport.abort()


def _other(direction: Direction) -> Direction:
    return DOWN if direction is UP else UP


class Link:
    """Listens on 127.0.0.1 (a port of its own) and forwards to the broker, as hostile as it is told to be."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self.captures: list[Capture] = []
        self._rules: list[Rule] = []
        self._sessions: list[_Session] = []
        self._changed = threading.Condition()
        self._packet_id = _LAST_PACKET_ID
        self._refusing = False
        self._packets = 0
        self._packet_bytes = 0
        self._fatal: FatalPacket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile-link", daemon=True)
        self._server: asyncio.Server | None = None
        self.thawed = asyncio.Event()
        self.port = 0

    # ------------------------------------------------------------------ life

    def start(self) -> Link:
        """Begin to listen."""
        self._thread.start()
        self._call(self._start())
        return self

    def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self._call(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def retarget(self, host: str, port: int) -> None:
        """Later connections go to another broker."""
        self._target = (host, port)

    async def _start(self) -> None:
        self.thawed.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._refusing = True
        self.thawed.set()
        for session in self._sessions:
            session.abort()
        ending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if ending:  # they end by themselves now that their connections are gone
            await asyncio.wait(ending, timeout=_STOP_DEADLINE_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()  # no broker there: the terminal sees what it would see without a proxy
            return
        session = _Session(self, writer, to_server)
        self._sessions.append(session)
        pumps = [
            asyncio.ensure_future(session.pump(UP, reader)),
            asyncio.ensure_future(session.pump(DOWN, from_server)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for result in await asyncio.gather(*pumps, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, (OSError, NotMqtt)):
                    self._loop.call_exception_handler({"message": "hostile link", "exception": result})
            self._sessions.remove(session)
            session.abort()
            with self._changed:
                self._changed.notify_all()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _run(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._call(call())

    # ------------------------------------------------------------------ for the sessions (loop thread)

    def note(self, capture: Capture) -> None:
        """Record a PUBLISH and wake whoever waits for it."""
        with self._changed:
            if len(self.captures) < _CAPTURE_LIMIT:
                self.captures.append(capture)
            self._changed.notify_all()

    def judge(self, direction: Direction, publish: Publish) -> Outcome | None:
        """What the rules make of it; None: forward untouched."""
        for rule in self._rules:
            if rule.claims(direction, publish):
                with self._changed:
                    self._changed.notify_all()
                return rule.action.apply(publish)
        return None

    def count_packet(self, packet: Packet) -> FatalPacket | None:
        """One more packet wants to pass; it is the fatal one if that is returned."""
        self._packets += 1
        self._packet_bytes += len(packet.raw)
        fatal = self._fatal
        if fatal is None or fatal.number != self._packets:
            return None
        self._fatal = None
        return fatal

    def next_packet_id(self) -> int:
        """A packet identifier of the link's own."""
        self._packet_id = self._packet_id - 1 if self._packet_id > 1 else _LAST_PACKET_ID
        return self._packet_id

    # ------------------------------------------------------------------ for the suites

    @property
    def connections(self) -> int:
        """Terminals connected now."""
        return len(self._sessions)

    def tap(self, direction: Direction, topic: str = "#") -> Tap:
        """Watch what passes from now on."""
        return Tap(self, direction, topic)

    def rule(
        self, direction: Direction, topic: str, action: Action, *, skip: int = 0, times: int | None = None
    ) -> Rule:
        """Treat matching PUBLISHes from now on; earlier rules are asked first."""
        rule = Rule(direction, topic, action, skip, times)
        self._run(lambda: self._rules.append(rule))
        return rule

    def lift(self, rule: Rule) -> None:
        """Take one rule away."""
        self._run(lambda: self._rules.remove(rule) if rule in self._rules else None)

    def clear(self) -> None:
        """An honest link again: no rules, not frozen, not refusing. Captures stay."""

        def reset() -> None:
            self._rules.clear()
            self._refusing = False
            self.thawed.set()

        self._run(reset)

    def fired(self, rule: Rule, times: int = 1, deadline_s: float = 20.0) -> None:
        """Wait until a rule has treated `times` PUBLISHes.

        Raises: DeadlinePassed.
        """
        self.wait_until(
            lambda: rule.fired >= times,
            deadline_s,
            lambda: f"{times} packets for the rule on {rule.topic} (treated {rule.fired})",
        )

    def cut(self) -> None:
        """Reset every connection now; new ones are welcome."""

        def abort() -> None:
            for session in list(self._sessions):
                session.abort()

        self._run(abort)

    def cut_at(self, fatal: FatalPacket | None) -> None:
        """Begin to count MQTT packets, and end the connection at this one."""

        def choose() -> None:
            self._packets, self._packet_bytes, self._fatal = 0, 0, fatal

        self._run(choose)

    @property
    def packets(self) -> int:
        """MQTT packets since `cut_at`, in both directions."""
        return self._packets

    @property
    def packet_bytes(self) -> int:
        """Their bytes, without TCP/IP."""
        return self._packet_bytes

    @property
    def is_cut_due(self) -> bool:
        """Whether the packet chosen by `cut_at` has not come yet."""
        return self._fatal is not None

    def refuse(self) -> None:
        """Reset every connection and every attempt until `clear`."""

        def shut() -> None:
            self._refusing = True
            for session in list(self._sessions):
                session.abort()

        self._run(shut)

    def freeze(self) -> None:
        """Half-open: connections stand, nothing passes, until `clear` (what was held passes) or `cut`."""
        self._run(self.thawed.clear)

    def inject(self, direction: Direction, publish: Publish, client: str | None = None) -> None:
        """Put a PUBLISH of the link's own into a terminal's connection (the newest one of that client).

        Raises: BenchError(NOT_CONNECTED).
        """

        def send() -> bool:
            for session in reversed(self._sessions):
                if client in (None, session.client):
                    session.send(direction, publish)
                    return True
            return False

        if not self._run(send):
            raise BenchError("NOT_CONNECTED", f"No terminal {client or ''} is connected through the link.")

    def replay(self, capture: Capture, client: str | None = None) -> None:
        """Send a captured PUBLISH again, the way it went."""
        self.inject(capture.direction, capture.publish, client or capture.client)

    def release(self, hold: Hold, direction: Direction, client: str | None = None) -> int:
        """Let what a Hold kept pass, in order; returns how many."""
        held, hold.held = hold.held, []
        for publish in held:
            self.inject(direction, publish, client)
        return len(held)

    def wait_until(self, true: Callable[[], bool], deadline_s: float, what: Callable[[], str]) -> None:
        """Wait for a condition on captures, rules or connections.

        Raises: DeadlinePassed.
        """
        with self._changed:
            if not self._changed.wait_for(true, deadline_s):
                raise DeadlinePassed(f"The link did not see {what()} within {deadline_s:g} s.")
