"""A state of the campaign as one line of text, from which it can be made again.

A line is the golden update's name and one or more faults:

    new cut=137                       the power fails between two steps
    new cut=137:keep=9:seed=4         inside the step that follows: nine bytes, then some bits, happen
    new cut=137 cut=12                and again inside the recovery, 12 steps after the power came back
    new lose=5:seed=3                 the steps of the 5th sync group happen only in part and out of order
    new cut=137 rot=1048576           a bit of the flash (counted from its start) flips while the power is off
    new link=7, link=7:after, twice=7 the link breaks at the 7th message, or right behind it; it comes twice
    new cancel=9, cancel=0            an operator cancels it at the 9th message, or as soon as it is on trial
    new content=random                the server's bytes are wrong (firmware/boards/common/campaign.py)
    new unplug=4, hang=1, brownout=12 starts on trial that end by the plug, in a hang, or without end
    new alone=12, unfit=1             starts on trial without any network that last; its self-test fails
    new crash=1, restart=12           confirmed, it dies at every start; or is restarted after every session
    bad late=5                        at every start the link comes up only after five seconds
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.campaign.trace import Tear
from bench.errors import BenchError

CUT, LOSE, ROT, LINK, TWICE = "cut", "lose", "rot", "link", "twice"
CONTENT, UNPLUG, HANG, BROWNOUT, LATE = "content", "unplug", "hang", "brownout", "late"
CANCEL = "cancel"
ALONE, UNFIT, CRASH, RESTART = "alone", "unfit", "crash", "restart"
CHIP = "chip"  # firmware images only (image_plan.py)
_NUMBERED = (CUT, LOSE, ROT, LINK, TWICE, UNPLUG, HANG, BROWNOUT, LATE, CANCEL, ALONE, UNFIT, CRASH, RESTART)
FLASH_FAULTS = (CUT, LOSE, ROT)
WHOLE = -1


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `keep`: bytes of the interrupted step that happen, WHOLE for a cut between steps."""

    kind: str
    number: int = 0
    keep: int = WHOLE
    seed: int = 0
    after: bool = False
    name: str = ""

    @property
    def tear(self) -> Tear:
        """How the step is interrupted."""
        return Tear(max(0, self.keep), self.seed)

    def __str__(self) -> str:
        parts = [f"{self.kind}={self.name or self.number}"]
        if self.keep != WHOLE:
            parts.append(f"keep={self.keep}")
        if self.seed:
            parts.append(f"seed={self.seed}")
        if self.after:
            parts.append("after")
        return ":".join(parts)


@dataclass(frozen=True, slots=True)
class Line:
    """A golden update and what goes wrong with it."""

    golden: str
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return " ".join([self.golden, *map(str, self.faults)])

    def then(self, fault: Fault) -> Line:
        """The same with one more fault."""
        return Line(self.golden, (*self.faults, fault))

    @property
    def is_torn(self) -> bool:
        """Whether its last fault interrupts a step or a sync group."""
        last = self.faults[-1]
        return last.kind == LOSE or last.keep != WHOLE


def parse(text: str) -> Line:
    """Read a line. Raises: BenchError(BAD_LINE)."""
    words = text.split()
    try:
        return Line(words[0], tuple(_fault(word) for word in words[1:]))
    except (ValueError, IndexError):
        raise BenchError(
            "BAD_LINE", f"{text!r} is no line of the campaign; one looks like: new cut=137:keep=9 cut=12"
        ) from None


def _fault(word: str) -> Fault:
    head, *rest = word.split(":")
    kind, value = head.split("=")
    after = "after" in rest
    numbers = {key: int(number) for key, number in (part.split("=") for part in rest if part != "after")}
    if not set(numbers) <= {"keep", "seed"}:
        raise ValueError(word)
    keep, seed = numbers.get("keep", WHOLE), numbers.get("seed", 0)
    if kind in _NUMBERED:
        return Fault(kind, int(value), keep, seed, after)
    if kind in (CONTENT, CHIP):
        return Fault(kind, 0, keep, seed, after, value)
    raise ValueError(word)
