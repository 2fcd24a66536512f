"""What the broker keeps for a terminal across connections: subscriptions, unacknowledged messages, a
bounded backlog.

QoS 1 towards the terminal is windowed: at most ``WINDOW`` messages are in flight, the rest wait here.
Nothing times out: a message leaves only by its PUBACK, by the backlog's bound (the oldest goes, counted) or
with the session. After a reconnect everything unacknowledged is sent again with DUP, in order, before
anything new.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from server.transport.mqtt import publish_packet, topic_matches

WINDOW = 64
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way to a terminal."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool


@dataclass(slots=True)
class ClientSession:
    """The state of one client id; ``outbox`` packets are returned for the connection to write."""

    client_id: str
    subscriptions: dict[str, int] = field(default_factory=dict)
    in_flight: OrderedDict[int, Message] = field(default_factory=OrderedDict)
    backlog: deque[Message] = field(default_factory=deque)
    dropped: int = 0
    _next_id: int = 0
    _granted: dict[str, int] = field(default_factory=dict)

    def subscribe(self, topic_filter: str, qos: int) -> None:
        """Add or replace a subscription."""
        self.subscriptions[topic_filter] = qos
        self._granted.clear()

    def unsubscribe(self, topic_filter: str) -> None:
        """Remove a subscription if it is there."""
        self.subscriptions.pop(topic_filter, None)
        self._granted.clear()

    def granted_qos(self, topic: str) -> int:
        """The highest QoS any subscription grants for a topic, -1 when none covers it."""
        known = self._granted.get(topic)
        if known is None:
            known = max(
                (qos for pattern, qos in self.subscriptions.items() if topic_matches(pattern, topic)),
                default=-1,
            )
            if len(self._granted) < 256:
                self._granted[topic] = known
        return known

    def send(self, message: Message, *, connected: bool) -> bytes:
        """Queue a message and return the bytes to write now (none when offline or beyond the window)."""
        if message.qos == 0:
            return (
                publish_packet(message.topic, message.payload, 0, 0, retain=message.retain, dup=False)
                if connected
                else b""
            )
        if connected and not self.backlog and len(self.in_flight) < WINDOW:
            return self._launch(message)
        if len(self.backlog) >= BACKLOG:
            self.backlog.popleft()
            self.dropped += 1
        self.backlog.append(message)
        return b""

    def acknowledged(self, packet_id: int) -> bytes:
        """Take a PUBACK and return what the freed window lets out. Unknown ids are ignored."""
        if self.in_flight.pop(packet_id, None) is None:
            return b""
        return self._fill()

    def resume(self) -> bytes:
        """Everything a new connection of this session has to be sent first."""
        again = [
            publish_packet(message.topic, message.payload, 1, packet_id, retain=message.retain, dup=True)
            for packet_id, message in self.in_flight.items()
        ]
        return b"".join([*again, self._fill()])

    def _fill(self) -> bytes:
        out = []
        while self.backlog and len(self.in_flight) < WINDOW:
            out.append(self._launch(self.backlog.popleft()))
        return b"".join(out)

    def _launch(self, message: Message) -> bytes:
        while True:
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self.in_flight:
                break
        self.in_flight[self._next_id] = message
        return publish_packet(
            message.topic, message.payload, 1, self._next_id, retain=message.retain, dup=False
        )
