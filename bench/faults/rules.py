"""What a hostile link may do to one PUBLISH: actions as small classes, and the rule that says when.

An action turns one PUBLISH into what happens instead. The link gives every PUBLISH it makes itself a packet
identifier of its own and swallows the matching PUBACK, so both ends keep a valid MQTT conversation: what they
see is a broker that lies about content, not a broken TCP stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from bench.faults.mqtt import Publish, matches


class Direction(Enum):
    """UP: terminal to server. DOWN: server to terminal."""

    UP = "up"
    DOWN = "down"


@dataclass
class Outcome:
    """What becomes of a PUBLISH.

    `forward`: sent on in its place (the original's packet id is kept by the first that has it);
    `extra`: additional PUBLISHes the link makes itself; `acknowledge`: the link answers the PUBACK the
    receiver will never send; `delay_s`: everything above waits that long, packets behind it pass.
    """

    forward: Publish | None
    extra: list[Publish] = field(default_factory=list)
    acknowledge: bool = False
    delay_s: float = 0.0


class Action(ABC):
    """One way of treating a PUBLISH."""

    @abstractmethod
    def apply(self, publish: Publish) -> Outcome:
        """Decide."""


class Drop(Action):
    """Swallow it. With `puback` the sender is told it arrived: the worst a broker can do."""

    def __init__(self, puback: bool = True) -> None:
        self._puback = puback

    def apply(self, publish: Publish) -> Outcome:
        return Outcome(None, acknowledge=self._puback)


class Delay(Action):
    """Let it arrive later than what follows it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def apply(self, publish: Publish) -> Outcome:
        return Outcome(publish, delay_s=self._seconds)


class Duplicate(Action):
    """Deliver it `copies` more times."""

    def __init__(self, copies: int = 1) -> None:
        self._copies = copies

    def apply(self, publish: Publish) -> Outcome:
        return Outcome(publish, extra=[publish] * self._copies)


class Change(Action):
    """Rewrite the payload."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        self._change = change

    def apply(self, publish: Publish) -> Outcome:
        return Outcome(publish.with_payload(self._change(publish.payload)))


class Retopic(Action):
    """Deliver it under another topic."""

    def __init__(self, change: Callable[[str], str]) -> None:
        self._change = change

    def apply(self, publish: Publish) -> Outcome:
        return Outcome(Publish(self._change(publish.topic), publish.payload, publish.qos, publish.packet_id))


class Hold(Action):
    """Keep it (acknowledged to the sender) until `Link.release`."""

    def __init__(self) -> None:
        self.held: list[Publish] = []

    def apply(self, publish: Publish) -> Outcome:
        self.held.append(publish)
        return Outcome(None, acknowledge=True)


class Reorder(Action):
    """Swap each pair: the first waits for the second and follows it."""

    def __init__(self) -> None:
        self._waiting: Publish | None = None

    def apply(self, publish: Publish) -> Outcome:
        if self._waiting is None:
            self._waiting = publish
            return Outcome(None, acknowledge=True)
        first, self._waiting = self._waiting, None
        return Outcome(publish, extra=[first])


def flip_bit(bit: int) -> Callable[[bytes], bytes]:
    """A payload change: flip bit number `bit` (negative counts from the end)."""

    def change(payload: bytes) -> bytes:
        data = bytearray(payload)
        at = bit % (8 * len(data))
        data[at // 8] ^= 0x80 >> at % 8
        return bytes(data)

    return change


@dataclass
class Rule:
    """`action` for the PUBLISHes of a direction and topic pattern, after `skip` of them, at most `times`."""

    direction: Direction
    topic: str
    action: Action
    skip: int = 0
    times: int | None = None
    fired: int = 0
    originals: list[Publish] = field(default_factory=list)

    def claims(self, direction: Direction, publish: Publish) -> bool:
        """True when this PUBLISH is the rule's to treat (and counts it)."""
        if direction is not self.direction or not matches(self.topic, publish.topic):
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.fired += 1
        self.originals.append(publish)
        return True
