"""The network between terminals and broker: byte streams with latency, and everything that goes wrong.

Inside one connection bytes keep their order, as TCP promises. A lossy broker or gateway is modelled on whole
MQTT packets: PUBLISH and PUBACK may vanish, come twice, come late or
change places, and a bit of an authenticated payload may flip. Connections may be reset
(both ends notice), go half-open (nobody notices), or survive their terminal: bytes of an old connection then
arrive after those of the new one.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.sim.clock import owner
from bench.sim.packets import PUBACK, PUBLISH, Cutter, flip_bit
from bench.sim.randomness import Seeded

Accept = Callable[[asyncio.StreamReader, "ServerWriter"], None]


@dataclass(frozen=True)
class PacketFaults:
    """Probabilities per PUBLISH or PUBACK packet."""

    drop: float = 0.002
    duplicate: float = 0.005
    delay: float = 0.005
    swap: float = 0.004
    corrupt: float = 0.002

    def any(self) -> bool:
        """Whether packets have to be looked at."""
        return self.drop + self.duplicate + self.delay + self.swap + self.corrupt > 0


NO_PACKET_FAULTS = PacketFaults(0, 0, 0, 0, 0)


class Pipe:
    """One direction of a connection: delivers in order, later, or (``dark``) never."""

    def __init__(self, network: Network, deliver: Callable[[bytes | None], None]) -> None:
        self._network = network
        self._deliver = deliver
        self._cutter = Cutter()
        self._last_s = 0.0
        self.dark = False
        self.ended = False

    def send(self, data: bytes) -> None:
        """Put bytes on the way."""
        if self.dark or self.ended:
            return
        network = self._network
        if not network.faults.any():
            self._schedule(data, 0.0)
            return
        packets = self._cutter.feed(data)
        gathered = b""
        late_s = 0.0
        for copy, extra_s in network.judge(packets):
            gathered += copy
            late_s = max(late_s, extra_s)
        if gathered:
            self._schedule(gathered, late_s)

    def end(self) -> None:
        """The sender closed: the receiver learns it after everything sent before."""
        if not self.ended:
            self.ended = True
            if not self.dark:
                self._schedule(None, 0.0)

    def cut(self) -> None:
        """Nothing that is still on the way arrives."""
        self.dark = True

    def _schedule(self, data: bytes | None, extra_s: float) -> None:
        loop = self._network.loop
        when = max(self._last_s, loop.time() + self._network.latency_s() + extra_s)
        self._last_s = when
        loop.call_at(when, self._arrive, data)

    def _arrive(self, data: bytes | None) -> None:
        if not self.dark:
            self._deliver(data)


class Network:
    """All connections of a run. ``accept`` is the broker's listener, None while the server is down."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Seeded, count: Callable[[str], None]) -> None:
        self.loop = loop
        self.faults = NO_PACKET_FAULTS
        self.accept: Accept | None = None
        self.wires: dict[int, list[Wire]] = {}
        self._random = random
        self._count = count

    def latency_s(self) -> float:
        """One to fifteen milliseconds."""
        return 0.001 + 0.014 * self._random.draw.random()

    def judge(self, packets: list[tuple[int, bytes]]) -> list[tuple[bytes, float]]:
        """What becomes of packets: (bytes, extra delay in seconds) in the order they will arrive."""
        random = self._random
        out: list[tuple[bytes, float]] = []
        for kind, packet in packets:
            if kind not in (PUBLISH, PUBACK):
                out.append((packet, 0.0))
                continue
            fate = self._fate()
            if fate == "corrupt":
                changed = flip_bit(packet, random.draw) if kind == PUBLISH else packet
                fate = "corrupt" if changed != packet else ""
                packet = changed
            if fate == "reorder" and not out:
                fate = ""
            if fate:
                self._count(fate)
            if fate == "duplicate":
                out += [(packet, 0.0), (packet, 0.0)]
            elif fate == "delay":
                out.append((packet, random.about(2.0)))
            elif fate == "reorder":
                out.insert(len(out) - 1, (packet, 0.0))
            elif fate != "drop":
                out.append((packet, 0.0))
        return out

    def _fate(self) -> str:
        """The fault that meets one packet, "" for none."""
        faults, draw = self.faults, self._random.draw.random()
        for name, probability in (
            ("drop", faults.drop),
            ("duplicate", faults.duplicate),
            ("delay", faults.delay),
            ("reorder", faults.swap),
            ("corrupt", faults.corrupt),
        ):
            if draw < probability:
                return name
            draw -= probability
        return ""

    def dial(self, port: int) -> Wire:
        """A terminal connects (its port is its number). Raises: OSError where nobody listens."""
        if self.accept is None:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        wire = Wire(self, port)
        self.wires.setdefault(port, []).append(wire)
        self.accept(wire.reader, wire.writer)
        return wire

    def dropped(self, wire: Wire) -> None:
        """A connection is closed at both ends."""
        wires = self.wires.get(wire.port, [])
        if wire in wires:
            wires.remove(wire)

    def cut_server(self) -> None:
        """The server's machine lost its power: no listener, and every connection just falls silent or, when
        the kernel of the restarted machine answers, is reset.
        """
        self.accept = None
        for port in sorted(self.wires):
            for wire in list(self.wires[port]):
                wire.server_gone()

    def cut_terminal(self, port: int) -> None:
        """A terminal lost its power: what it sent stays on its way, nobody reads what is sent to it."""
        for wire in list(self.wires.get(port, [])):
            wire.terminal_gone()


class Wire:
    """One TCP connection: the terminal's end is ``Socket``, the server's a reader and a writer."""

    def __init__(self, network: Network, port: int) -> None:
        self.network = network
        self.port = port
        self.up = Pipe(network, self._to_server)
        self.down = Pipe(network, self._to_terminal)
        self.reader = asyncio.StreamReader(loop=network.loop)
        self.writer = ServerWriter(self)
        self.inbox = bytearray()
        self.inbox_end: int | None = None  # 0 for an orderly end, else an errno
        self.arrived = asyncio.Event()

    def _to_server(self, data: bytes | None) -> None:
        if data is None:
            self.reader.feed_eof()
        elif not self.writer.closed:
            self.reader.feed_data(data)
        elif not self.down.dark:  # the kernel answers bytes for a closed socket with a reset
            self.network.loop.call_later(self.network.latency_s(), self._reset_terminal)

    def _to_terminal(self, data: bytes | None) -> None:
        if data is None:
            self.inbox_end = 0
        else:
            self.inbox += data
        self.arrived.set()

    def reset(self) -> None:
        """Both ends learn at once that the connection is gone; what was on its way is lost."""
        self.up.cut()
        self.down.cut()
        self.inbox_end = errno.ECONNRESET
        self.arrived.set()
        if not self.reader.at_eof():
            self.reader.feed_eof()
        self.network.dropped(self)

    def go_half_open(self, up: bool, down: bool) -> None:
        """One direction or both carry nothing any more, and nobody is told."""
        self.up.dark |= up
        self.down.dark |= down

    def server_gone(self) -> None:
        """The server's end died with its machine: the terminal hears of it from the restarted kernel."""
        self.up.cut()
        self.down.cut()
        self.network.dropped(self)
        self.network.loop.call_later(0.5, self._reset_terminal)

    def _reset_terminal(self) -> None:
        self.inbox_end = errno.ECONNRESET
        self.arrived.set()

    def terminal_gone(self) -> None:
        """The terminal's end died with its machine: its bytes on the way arrive, then silence."""
        self.down.cut()
        self.up.ended = True
        self.network.dropped(self)


class ServerWriter:
    """The part of ``asyncio.StreamWriter`` (and its transport) that the broker uses."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.closed = False
        self.observe: Callable[[bytes], None] | None = None
        self.transport = self

    def write(self, data: bytes) -> None:
        """Send."""
        if not self.closed:
            if self.observe is not None and _alive():
                self.observe(bytes(data))
            self._wire.down.send(bytes(data))

    def is_closing(self) -> bool:
        """Whether the server closed its end."""
        return self.closed

    def get_write_buffer_size(self) -> int:
        """The simulated kernel takes everything."""
        return 0

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        """Nothing is known about the peer."""
        return default

    def close(self) -> None:
        """Close in an orderly way: the terminal gets what was written, then the end."""
        if not self.closed:
            self.closed = True
            self._wire.down.end()
            if not self._wire.reader.at_eof():
                self._wire.reader.feed_eof()
            self._wire.network.dropped(self._wire)

    def abort(self) -> None:
        """Close at once."""
        if not self.closed:
            self.closed = True
            self._wire.reset()


def _alive() -> bool:
    machine = owner.get()
    return machine is None or machine.alive


class Socket:
    """The terminal's end, with the surface of the firmware's ``mqtt.transport`` modules."""

    def __init__(self, network: Network, port: int) -> None:
        self._machine = owner.get()
        self._wire = network.dial(port)
        self._closed = False

    def readinto(self, buffer: Any) -> int | None:
        """Take what arrived; None when nothing did, 0 at the end. Raises: OSError after a reset."""
        wire = self._wire
        if wire.inbox:
            count = min(len(buffer), len(wire.inbox))
            buffer[:count] = wire.inbox[:count]
            del wire.inbox[:count]
            return count
        wire.arrived.clear()
        if wire.inbox_end is None:
            return None
        if wire.inbox_end:
            raise OSError(wire.inbox_end, os.strerror(wire.inbox_end))
        return 0

    def write(self, data: Any) -> int:
        """Send; the simulated kernel takes everything. Raises: OSError after a reset."""
        if self._wire.inbox_end:
            raise OSError(self._wire.inbox_end, os.strerror(self._wire.inbox_end))
        if not self._closed and (self._machine is None or self._machine.alive):
            self._wire.up.send(bytes(data))
        return len(data)

    async def readable(self) -> None:
        """Return when there is something to read."""
        wire = self._wire
        if not wire.inbox and wire.inbox_end is None:
            await wire.arrived.wait()

    async def writable(self) -> None:
        """Return when the connection is made, after one round trip."""
        await asyncio.sleep(self._wire.network.latency_s())

    def close(self) -> None:
        """Close in an orderly way; bytes on their way still arrive."""
        if not self._closed:
            self._closed = True
            if self._machine is None or self._machine.alive:
                self._wire.up.end()
