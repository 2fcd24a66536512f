"""Faults of a link or a server during an update over real MQTT: their lines, and how their outcome is judged.

Pure data and rules; bench/campaign/wire.py plays them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.campaign.oracles import Failure
from bench.console import Event
from bench.errors import BenchError
from bench.terminal import COMMITTED, Reply

LINK, KILL = "link", "kill"
# A cut between question and answer leaves an offer without proof of its freshness: refused, and made again.
_GOOD_REASONS = {"none", "stale-offer"}
_HARD_RESET = 2
_LINE = re.compile(r"wire (link|kill)=(\d+)(:after)?")


@dataclass(frozen=True)
class WireCase:
    """One fault of one update. `after`: once the packet arrived, or once the COMMIT returned."""

    kind: str
    number: int
    after: bool

    def __str__(self) -> str:
        return f"wire {self.kind}={self.number}" + (":after" if self.after else "")


@dataclass(frozen=True)
class WireVerdict:
    """What became of it. `happened` is False when the update was over before the packet or commit came."""

    case: WireCase
    happened: bool
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Traffic:
    """MQTT packets of one update in both directions, and their bytes without TCP/IP.

    From the publication to the confirmed report: restart, new session and two orders are part of it.
    """

    packets: int
    mqtt_bytes: int


def parse(text: str) -> WireCase:
    """Read a line. Raises: BenchError(BAD_LINE)."""
    found = _LINE.fullmatch(text)
    if found is None:
        raise BenchError(
            "BAD_LINE", f"{text!r} is no line of the campaign; one looks like: wire link=7:after"
        )
    return WireCase(found[1], int(found[2]), found[3] is not None)


def link_cases(packets: int) -> list[WireCase]:
    """Before and after every packet."""
    return [WireCase(LINK, n, after) for n in range(1, packets + 1) for after in (False, True)]


def judge_books(ops: Sequence[str], answers: Sequence[Reply], stored: Sequence[str]) -> list[Failure]:
    """What guests were told, against the op ids of the orders the server has committed."""
    failures = [
        Failure("G8", f"order {answer.op} was answered with status {answer.status}")
        for answer in answers
        if answer.status != COMMITTED
    ]
    counted = [(op, stored.count(op)) for op in ops]
    return failures + [
        Failure("G8", f"order {op} is in the books {count} times") for op, count in counted if count != 1
    ]


def judge_console(events: Sequence[Event]) -> list[Failure]:
    """What a terminal said from the publication to the confirmation of a good release."""
    boots = [event.data["reset_cause"] for event in events if event.name == "boot"]
    failures = []
    if boots != [_HARD_RESET]:
        failures.append(Failure("G5", f"the update took starts of causes {boots}, not one restart"))
    bad = {event.data["reason"] for event in events if event.name == "ota"} - _GOOD_REASONS
    if bad:
        failures.append(Failure("G6", f"a good release was refused or rolled back: {sorted(bad)}"))
    floors = [event.data["floor"] for event in events if event.name == "ota"]
    if floors != sorted(floors):
        failures.append(Failure("G4", f"the floor fell: {floors}"))
    faults = [e.data for e in events if e.name == "error" and e.data["code"] == "HANDLER_FAULT"]
    if faults:
        failures.append(Failure("G1", f"a handler of the terminal failed: {json.dumps(faults[0])}"))
    return failures
