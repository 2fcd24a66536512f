"""What every board can do: one small class per capability, and what a kind of board declares about itself.

A suite asks `board.power`, `board.console`, `board.link`, `board.flash`; it never asks what the board is made
of. What a kind lacks is declared in `features`, not discovered by failing. tests/board/test_contract.py holds
every kind to this page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.boards.flashmap import ERASED, FLASH_BYTES, REGIONS
from bench.console import Console
from bench.errors import BenchError

BootOptions = dict[str, Any]

POWER_ON, HARD, WATCHDOG, CRASH, SOFT = 1, 2, 3, 4, 5
RESET_CAUSES = {POWER_ON: "power-on", HARD: "hard", WATCHDOG: "watchdog", CRASH: "crash", SOFT: "soft"}
EXIT_POWER_CUT = 120

FLASH_IMAGE = "flash-image"  # the bench reads and writes the flash while the board is off
POWER_CUT = "power-cut"  # power.off() is as sudden as pulling the plug
CUT_AT = "cut-at"  # power can fail inside the n-th flash step
BOOT_OPTIONS = "boot-options"  # the bench hands options to the firmware at power-on
INSTRET = "instret"  # executed instructions can be counted
LINK_SWITCH = "link-switch"  # the network cable can be pulled
RAW_REPL = "raw-repl"


class Power(ABC):
    """The plug."""

    @abstractmethod
    def on(self) -> None:
        """Start the board with its console attached from the first byte; the flash keeps what it had.

        Raises: BenchError when the board cannot start.
        """

    @abstractmethod
    def off(self) -> None:
        """Pull the plug: at once, no goodbye. Off stays off when already off."""

    @abstractmethod
    def wait_off(self, deadline_s: float) -> int:
        """Wait until the board goes away by itself; returns its exit code (EXIT_POWER_CUT after a cut).

        Raises: DeadlinePassed.
        """

    @property
    @abstractmethod
    def is_on(self) -> bool:
        """True while the board runs."""

    def cycle(self) -> None:
        """Off and on again."""
        self.off()
        self.on()


class Link(ABC):
    """The terminal's network as the bench sees it."""

    @property
    @abstractmethod
    def host_address(self) -> str:
        """The address under which the board reaches the bench's 127.0.0.1."""

    def up(self) -> None:
        """Plug the cable in."""
        raise BenchError(
            "NO_LINK_SWITCH", "This board's cable cannot be pulled: cut the link at the proxy instead."
        )

    def down(self) -> None:
        """Pull the cable."""
        raise BenchError(
            "NO_LINK_SWITCH", "This board's cable cannot be pulled: cut the link at the proxy instead."
        )


class Flash(ABC):
    """The board's flash from outside, region by region; only while the board is off."""

    @abstractmethod
    def read(self, region: str) -> bytes:
        """The whole region's bytes."""

    @abstractmethod
    def write(self, region: str, data: bytes, offset: int = 0) -> None:
        """Put bytes into a region, as a programmer clipped to the chip would."""

    @abstractmethod
    def erase(self, region: str | None = None) -> None:
        """Set one region, or everything, to 0xFF."""

    @abstractmethod
    def snapshot(self, to: Path) -> Path:
        """Keep a copy of the whole flash; returns where."""

    @abstractmethod
    def restore(self, snapshot: Path) -> None:
        """Bring a snapshot back."""


class ImageFlash(Flash):
    """Flash that is a file of the host; `pad_bytes` is what the emulator wants the file's size to be."""

    def __init__(self, path: Path, pad_bytes: int = FLASH_BYTES) -> None:
        self.path = path
        self._pad_bytes = pad_bytes
        if not path.exists():
            self.erase()

    def read(self, region: str) -> bytes:
        place = REGIONS[region]
        with self.path.open("rb") as file:
            file.seek(place.start)
            return file.read(place.size)

    def write(self, region: str, data: bytes, offset: int = 0) -> None:
        place = REGIONS[region]
        if offset + len(data) > place.size:
            raise BenchError(
                "TOO_LARGE", f"{len(data)} bytes at {offset} do not fit region {region} ({place.size})."
            )
        with self.path.open("r+b") as file:
            file.seek(place.start + offset)
            file.write(data)

    def erase(self, region: str | None = None) -> None:
        if region is not None:
            self.write(region, bytes([ERASED]) * REGIONS[region].size)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as file:
            file.write(bytes([ERASED]) * FLASH_BYTES)
            file.truncate(self._pad_bytes)

    def snapshot(self, to: Path) -> Path:
        with self.path.open("rb") as file:
            to.write_bytes(file.read(FLASH_BYTES))
        return to

    def restore(self, snapshot: Path) -> None:
        with self.path.open("r+b") as file:
            file.write(snapshot.read_bytes())


@dataclass
class Identity:
    """Who the terminal is, as written into it and registered with the server."""

    site: str
    device: str
    table: str
    password: str
    private_key_pem: bytes = field(repr=False)


@dataclass
class Board(ABC):
    """One board; `name` is unique within a rig, `boot_options` reach the firmware at each power-on."""

    name: str
    kind: str
    features: frozenset[str]
    console: Console
    power: Power
    link: Link
    flash: Flash | None
    identity: Identity | None = None
    boot_options: BootOptions = field(default_factory=dict)

    def require(self, feature: str) -> None:
        """Raises: BenchError when this kind of board does not declare the feature."""
        if feature not in self.features:
            raise BenchError(
                "NOT_SUPPORTED", f"Board {self.kind} has no {feature!r}: choose --board qemu or process."
            )

    def close(self) -> None:
        """Power off and let go of everything."""
        self.power.off()
        self.console.close()
