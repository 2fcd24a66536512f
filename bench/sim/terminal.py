"""A terminal on a simulated machine: the real firmware, with NOR flash in memory that outlives power cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.boards.base import Identity
from bench.provision import Endpoint, record, root_spki
from bench.sim import firmware
from bench.sim.clock import Machine
from bench.sim.randomness import Seeded

Emit = Callable[[str, dict[str, Any]], None]


class _Flash:
    """The flash of one power-on: it freezes at the moment of a power cut."""

    def __new__(cls, image: bytes | None, on_cut: Callable[[], None]) -> Any:
        nor = firmware.module("boards.host.nor")
        regions = firmware.module("terminal.regions")

        class Freezing(nor.Nor):  # type: ignore[misc, name-defined]
            dead = False

            def _step(self, offset: int, new: bytes) -> None:
                if self.dead:
                    return
                try:
                    super()._step(offset, new)
                except nor.PowerCut:
                    self.dead = True
                    on_cut()

        return Freezing(regions.FLASH_BYTES, image)


class SimTerminal:
    """One terminal through all its power-ons. ``emit`` gets the firmware's events while it is alive."""

    def __init__(
        self,
        number: int,
        who: Identity,
        folder: Path,
        random: Seeded,
        emit: Emit,
        on_cut: Callable[[int, str], None],
    ) -> None:
        self.number = number
        self.who = who
        self.device = who.device
        self.root = folder / who.device
        self.root.mkdir(parents=True)
        self.machine = Machine(who.device)
        self.machine.alive = False
        self.random = random
        self.app: Any = None
        self.boots = 0
        self._emit = emit
        self._on_cut = on_cut
        self._endpoint = Endpoint("127.0.0.1", number)
        self._image = self._provisioned()
        self._nor: Any = None
        self._task: asyncio.Task[Any] | None = None

    def _provisioned(self) -> bytes:
        regions = firmware.module("terminal.regions")
        image = bytearray(b"\xff" * regions.FLASH_BYTES)
        data = record(self.who, self._endpoint, root_spki())
        offset, _ = regions.find("identity")
        image[offset : offset + len(data)] = data
        return bytes(image)

    def power_on(self) -> None:
        """Start the firmware from what is in flash."""
        self.boots += 1
        machine = self.machine = Machine(f"{self.device}/{self.boots}")
        entropy = self.random.fork(f"boot-{self.boots}")
        self._nor = nor = _Flash(self._image, lambda: self._on_cut(self.number, "torn_page"))
        hostboard = firmware.module("boards.host.hostboard")
        board = hostboard.HostBoard(self.root, nor, {"backoff_ms": 15000}, entropy.random, "sim")
        board.reset = lambda: self._on_cut(self.number, "firmware_reset")

        def emit(name: str, data: dict[str, Any]) -> None:
            if machine.alive:
                self._emit(name, {**data, "device": self.device})

        machine.run(self._life(board, emit))

    async def _life(self, board: Any, emit: Emit) -> None:
        app = firmware.module("terminal.app")
        try:
            self.app = app.Terminal(board, "factory", emit)
            await self.app.run()
        except Exception as error:  # noqa: BLE001 - any end of the firmware is an event of the run
            emit("crash", {"code": type(error).__name__, "text": str(error)})

    def cut_at(self, step: int, keep: int, seed: int) -> None:
        """Let the power fail inside a flash step to come."""
        self._nor.cut_at(step, keep, seed)

    def cut(self) -> None:
        """The power fails now."""
        self.machine.alive = False
        self._nor.dead = True
        self._image = bytes(self._nor.data)

    async def bury(self) -> None:
        """Clear away what is left of the last power-on."""
        await self.machine.bury()
        self.app = None

    @property
    def running(self) -> bool:
        """Whether it has power and its firmware is up."""
        return self.machine.alive and self.app is not None

    @property
    def menu_version(self) -> int:
        """Of the menu in use, 0 for none."""
        info = self.app.menu.current() if self.app is not None else None
        return int(info.version) if info is not None else 0

    @property
    def pending(self) -> int:
        """Ops in its outbox."""
        return len(self.app.outbox) if self.app is not None else -1
