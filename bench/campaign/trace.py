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

from bench.boards.flashmap import FLASH_BYTES, SECTOR_BYTES, Region

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

    def lies_in(self, region: Region) -> bool:
        """Whether it changes this region."""
        return region.start <= self.offset < region.start + region.size

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
    """A flash image that knows its own hash: a base that many share, and the pages that differ from it.

    The hash is the sum of the hashes of its pages, and pages are hashed when somebody asks: a copy and a step
    cost no more than the pages that changed.
    """

    def __init__(self, image: bytes | bytearray) -> None:
        assert len(image) == FLASH_BYTES
        self.base = bytes(image)
        self.pages: dict[int, bytes] = {}
        used = [page for page in range(FLASH_BYTES // PAGE_BYTES) if self.is_used(page)]
        self._hashes = {page: _hash_page(page, self._page(page)) for page in used}
        self._sum = 0
        for known in self._hashes.values():
            self._sum ^= known
        self._changed: set[int] = set()

    @classmethod
    def copy_of(cls, other: FlashState) -> FlashState:
        """An independent copy."""
        made = cls.__new__(cls)
        made.base = other.base
        made.pages = dict(other.pages)
        made._hashes = other._hashes
        made._sum = other._sum
        made._changed = set(other._changed)
        return made

    @property
    def data(self) -> bytes:
        """The whole image."""
        image = bytearray(self.base)
        for page, content in self.pages.items():
            image[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = content
        return bytes(image)

    @property
    def hash(self) -> int:
        """128 bits that name the contents."""
        if self._changed:
            self._hashes = dict(self._hashes)  # a copy may share it
            for page in self._changed:
                now = _hash_page(page, self.pages[page])
                self._sum ^= self._hashes.get(page, 0) ^ now
                self._hashes[page] = now
            self._changed.clear()
        return self._sum

    def read(self, start: int, length: int) -> bytes:
        """These bytes of the image."""
        first, last = start // PAGE_BYTES, (start + length - 1) // PAGE_BYTES
        found = b"".join(map(self._page, range(first, last + 1)))
        skip = start - first * PAGE_BYTES
        return found[skip : skip + length]

    def apply(self, steps: Iterable[Step]) -> None:
        """Let steps happen, whole."""
        for step in steps:
            page = step.offset // PAGE_BYTES
            self.pages[page] = self._page_after(page, step)
            self._changed.add(page)

    def torn(self, step: Step, tear: Tear) -> Step:
        """What this step leaves here when it is interrupted."""
        return torn(step, self.read(step.offset, len(step.data)), tear)

    def hash_with(self, step: Step) -> int:
        """The hash this image would have after one more step."""
        known = self.hash
        page = step.page
        return known ^ self._hashes.get(page, 0) ^ _hash_page(page, self._page_after(page, step))

    def is_used(self, page: int) -> bool:
        """Whether anything is programmed in a page."""
        return self._page(page) != ERASED_PAGE

    def flip(self, bit: int) -> None:
        """Let one bit rot; `bit` counts from the start of the flash."""
        at = bit // 8
        self.apply([Step(at, bytes((self.read(at, 1)[0] ^ 1 << bit % 8,)))])

    def _page(self, page: int) -> bytes:
        found = self.pages.get(page)
        return self.base[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] if found is None else found

    def _page_after(self, page: int, step: Step) -> bytes:
        if len(step.data) == PAGE_BYTES:
            return step.data
        before, at = self._page(page), step.offset % PAGE_BYTES
        return before[:at] + step.data + before[at + len(step.data) :]


def _hash_page(page: int, content: bytes) -> int:
    if content == ERASED_PAGE:
        return 0
    return int.from_bytes(blake2b(content, digest_size=16, salt=page.to_bytes(4, "big")).digest(), "big")
