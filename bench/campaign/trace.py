"""Flash steps as the process board traces them, and what an interrupted one leaves behind.

A step is at most a 256-byte page of a program, or one 256-byte slice of an erase; `data` is what the array
holds afterwards (firmware/boards/process/flash.c). A trace is the steps of one or more lives in order, with
the barriers at which the file system asked for everything before to be durable.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

from bench.boards.flashmap import FLASH_BYTES, SECTOR_BYTES

PAGE_BYTES = 256
_ENTRY = struct.Struct("=II")
ERASED_PAGE = b"\xff" * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Step:
    """One flash step: where it stores, and what."""

    offset: int
    data: bytes

    @property
    def page(self) -> int:
        """The number of the page it lies in."""
        return self.offset // PAGE_BYTES

    @property
    def sector(self) -> int:
        """The number of the sector it lies in."""
        return self.offset // SECTOR_BYTES

    @property
    def is_erase(self) -> bool:
        """Whether it is one slice of an erase (a program never leaves a whole page blank)."""
        return self.data == ERASED_PAGE


@dataclass(frozen=True, slots=True)
class Tear:
    """How a step is interrupted: its first `keep` bytes happen, and with a `seed` some later bits, too."""

    keep: int
    seed: int = 0


@dataclass(frozen=True)
class Trace:
    """Steps, and for each barrier the number of steps before it."""

    steps: tuple[Step, ...]
    barriers: tuple[int, ...]

    @staticmethod
    def parse(raw: bytes) -> Trace:
        """Read a trace file; a half-written last entry is left out."""
        steps: list[Step] = []
        barriers: list[int] = []
        at = 0
        while at + _ENTRY.size <= len(raw):
            offset, length = _ENTRY.unpack_from(raw, at)
            at += _ENTRY.size + length
            if at > len(raw):
                break
            if length:
                steps.append(Step(offset, raw[at - length : at]))
            elif not barriers or barriers[-1] != len(steps):
                barriers.append(len(steps))
        return Trace(tuple(steps), tuple(barriers))

    @staticmethod
    def joined(parts: Sequence[Trace]) -> Trace:
        """Several lives one after another; the end of a life is a barrier."""
        steps: list[Step] = []
        barriers: list[int] = []
        for part in parts:
            barriers += [len(steps) + barrier for barrier in part.barriers]
            steps += part.steps
            barriers.append(len(steps))
        return Trace(tuple(steps), tuple(sorted(set(barriers))))

    def groups(self) -> list[range]:
        """Runs of at least two steps without a barrier between them."""
        edges = sorted({0, *self.barriers, len(self.steps)})
        spans = [range(a, b) for a, b in pairwise(edges)]
        return [span for span in spans if len(span) > 1]

    @property
    def erases(self) -> int:
        """Sector erases, begun or finished."""
        slices = [step for step in self.steps if step.is_erase]
        return sum(1 for step in slices if step.offset % SECTOR_BYTES == 0)

    @property
    def program_bytes(self) -> int:
        """Bytes programmed, in whole words."""
        return sum(len(step.data) for step in self.steps if not step.is_erase)


def torn(step: Step, before: bytes | bytearray | memoryview, tear: Tear) -> Step:
    """What an interrupted step stores where `before` was (firmware/boards/shared/nor.c, `tear`)."""
    wanted = bytearray(step.data)
    done = max(0, min(tear.keep, len(wanted)))
    random = tear.seed
    for at in range(len(wanted)):
        mask = 0
        if random:
            random = (random ^ random << 13) & 0xFFFFFFFF
            random ^= random >> 17
            random = (random ^ random << 5) & 0xFFFFFFFF
            mask = random & 0xFF
        if at >= done:
            wanted[at] = (wanted[at] & mask) | (before[at] & ~mask & 0xFF)
    return Step(step.offset, bytes(wanted))


class FlashState:
    """A flash image that knows its own hash.

    The hash is the sum of the hashes of its pages, and pages are hashed when somebody asks: a step costs no
    more than its bytes, a hash no more than the pages that changed.
    """

    def __init__(self, image: bytes | bytearray) -> None:
        assert len(image) == FLASH_BYTES
        self.data = bytearray(image)
        self._hashes: dict[int, int] = {}
        self._sum = 0
        self._changed = {page for page in range(FLASH_BYTES // PAGE_BYTES) if self.is_used(page)}

    @classmethod
    def copy_of(cls, other: FlashState) -> FlashState:
        """An independent copy."""
        made = cls.__new__(cls)
        made.data = bytearray(other.data)
        made._hashes = dict(other._hashes)
        made._sum = other._sum
        made._changed = set(other._changed)
        return made

    @property
    def hash(self) -> int:
        """128 bits that name the contents."""
        for page in self._changed:
            now = _hash_page(page, self.data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])
            self._sum ^= self._hashes.get(page, 0) ^ now
            self._hashes[page] = now
        self._changed.clear()
        return self._sum

    def apply(self, steps: Iterable[Step]) -> None:
        """Let steps happen, whole."""
        data = self.data
        for step in steps:
            data[step.offset : step.offset + len(step.data)] = step.data
            self._changed.add(step.page)

    def torn(self, step: Step, tear: Tear) -> Step:
        """What this step leaves here when it is interrupted."""
        return torn(step, memoryview(self.data)[step.offset : step.offset + len(step.data)], tear)

    def hash_with(self, step: Step) -> int:
        """The hash this image would have after one more step."""
        known = self.hash
        start = step.page * PAGE_BYTES
        page = self.data[start : start + PAGE_BYTES]
        page[step.offset - start : step.offset - start + len(step.data)] = step.data
        return known ^ self._hashes.get(step.page, 0) ^ _hash_page(step.page, page)

    def is_used(self, page: int) -> bool:
        """Whether anything is programmed in a page."""
        return self.data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] != ERASED_PAGE

    def flip(self, bit: int) -> None:
        """Let one bit rot; `bit` counts from the start of the flash."""
        at = bit // 8
        self.apply([Step(at, bytes((self.data[at] ^ 1 << bit % 8,)))])


def _hash_page(page: int, content: bytes | bytearray) -> int:
    if content == ERASED_PAGE:
        return 0
    return int.from_bytes(blake2b(content, digest_size=16, salt=page.to_bytes(4, "big")).digest(), "big")
