"""The sampled campaign on the QEMU board: the emulator is killed in the middle of an update, again and again.

A kill is a power cut: every store is in the flash file before the instruction after it. Where it falls is
the seed's choice in time, so what it hits depends on the host; what was promised by then is what the console
had said. The recovery may be hit by a second kill. Everything runs on the emulated RV32 chip but the
public powers of known signatures; the oracles are the campaign's, without those that need the trace.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench import children, images
from bench.boards.qemu import BANK_BYTES, EFUSE_ADDRESS, QEMU, efuse
from bench.campaign import world
from bench.campaign.machine import HUNG, RESET, Life, Machine, events
from bench.campaign.oracles import Case, Facts, Failure, Judge
from bench.campaign.record import newest
from bench.campaign.run import COUNTS, SCHEMA
from bench.campaign.trace import Trace
from bench.campaign.world import World
from bench.errors import BenchError

HARDWARE = "qemu-rv32"
_KILLED = -9
_LIFE_S = 120.0
_MAX_LIVES = 12
_SECOND_KILL = 0.3  # share of recoveries that are hit as well
_STARTED = '@campaign {"'
_NOTHING = Trace((), ())


class QemuMachine(Machine):
    """The emulated chip on a flash file in memory; a start lasts, through resets, until the power goes."""

    def __init__(self, binary: Path, served: bytes, parent: Path | None = None) -> None:
        super().__init__(binary, served, parent)
        self._efuse = self.flash.with_name("efuse")
        with self.flash.open("r+b") as file:
            file.truncate(BANK_BYTES)

    def live(self, script: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Life:
        """Start and wait for the power to go -> the last of the lives; `lives` has all of them."""
        return self.lives(script)[-1]

    def lives(self, script: Mapping[str, Any], kill_after_s: float | None = None) -> list[Life]:
        """Start; kill the emulator after a while, or wait for the end -> one life for each reset."""
        self._efuse.write_bytes(efuse({"campaign": dict(script)}))
        with self._said.open("wb") as out:
            child = children.spawn(self._command(), stdout=out, stderr=subprocess.STDOUT)
            try:
                code = child.wait(_LIFE_S if kill_after_s is None else kill_after_s)
            except subprocess.TimeoutExpired:
                children.kill(child)
                code = HUNG if kill_after_s is None else _KILLED
        return _split(self._said.read_text(errors="replace"), code, self.image())

    def _command(self) -> list[str]:
        return [
            QEMU, "-machine", "virt", "-m", "32M", "-bios", "none", "-nodefaults", "-display", "none",
            "-monitor", "none", "-serial", "stdio", "-device", "virtio-rng-device",
            "-global", "virtio-mmio.force-legacy=false",
            "-device", f"loader,file={self._binary}",
            "-device", f"loader,file={self._efuse},addr={EFUSE_ADDRESS:#x},force-raw=on",
            "-drive", f"if=pflash,unit=1,format=raw,file={self.flash}",
        ]  # fmt: skip


def _split(console: str, code: int, image: bytes) -> list[Life]:
    """One life for each start of the application; only the last one's control record is known."""
    parts: list[str] = []
    for line in console.splitlines(keepends=True):
        if not parts or '"started"' in line:
            parts.append("")
        parts[-1] += line
    if len(parts) > 1 and '"started"' not in parts[0]:
        parts[1] = parts[0] + parts[1]
        del parts[0]
    record = newest(image)
    lives = [Life(RESET, tuple(events(part)), part, _NOTHING, record, is_last=False) for part in parts[:-1]]
    return [*lives, Life(code, tuple(events(parts[-1] if parts else "")), console, _NOTHING, record)]


@dataclass(frozen=True)
class Sample:
    """One update with its kills, in seconds after each power-on, and the verdict."""

    kills: tuple[float, ...]
    failures: tuple[Failure, ...]
    console: str


class Sampler:
    """Plays samples on one emulated chip."""

    def __init__(self, place: World) -> None:
        self._world = place
        self._machine = QemuMachine(place.binary, place.served)

    def play(self, random: Random, update_s: float) -> Sample:
        """One update, killed once or more at seeded moments, then left alone."""
        self._machine.load(self._world.base)
        facts = Facts(floor=self._world.releases["old"].floor, confirmed=self._world.releases["old"].version)
        script = self._world.script("new", orders=[4, 13], answers=[8])
        kills: list[float] = []
        failures: list[Failure] = []
        console = ""
        while not kills or random.random() < _SECOND_KILL:
            kills.append(round(random.uniform(0.05, update_s), 3))
            lives = self._machine.lives(script, kills[-1])
            console += lives[-1].console
            self._know(facts, lives)
            if lives[-1].exit_code == 0:
                break  # the update was done before the kill
        case = Case("new", "new", max_lives=_MAX_LIVES, unseen=True, known=dict(facts.queued))
        lives = self._machine.lives(self._world.script("new", orders=[3]))
        judge = Judge(self._world, case, facts)
        failures += judge.judge(lives)
        return Sample(tuple(kills), tuple(failures), console + lives[-1].console)

    def _know(self, facts: Facts, lives: list[Life]) -> None:
        for life in lives:
            for event in life.events:
                facts.learn(event)
        control = newest(self._machine.image())
        if control is not None:
            facts.floor = max(facts.floor, control.floor)
            if control.hash == self._world.releases["new"].digest:
                facts.confirmed = self._world.releases["new"].version


def campaign(
    seed: int, count: int, budget_s: float | None, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill the emulator `count` times, or as often as the budget allows -> result and details as JSON values.

    Raises: BenchError.
    """
    try:
        binary = images.build("qemu", progress=say).path
    except images.ImageError as error:
        raise BenchError(error.code.upper().replace("-", "_"), str(error)) from error
    place = world.build(binary, world.SEED, HARDWARE, QemuMachine, updates=("new",))
    start = time.monotonic()
    update_s = _undisturbed(place)
    say(f"seed {seed}; one undisturbed update takes {update_s:.1f} s on this host")
    deadline = None if budget_s is None else start + budget_s
    cuts = states = 0
    failed: list[Sample] = []
    with ThreadPoolExecutor(2) as pool:
        samplers = [Sampler(place), Sampler(place)]
        while cuts < count and (deadline is None or time.monotonic() < deadline):
            turn = [
                pool.submit(sampler.play, Random(f"{seed} {states + n}"), update_s)
                for n, sampler in enumerate(samplers)
            ]
            for future in turn:
                sample = future.result()
                states += 1
                cuts += len(sample.kills)
                if sample.failures:
                    failed.append(sample)
                    say(f"failed: kills after {sample.kills}: {sample.failures[0]}")
            if states % 20 == 0:
                say(f"{time.monotonic() - start:6.0f} s  {cuts} kills, {len(failed)} failures")
    seconds = time.monotonic() - start
    counted = Counter(states=states, cuts=cuts, second_cuts=cuts - states)
    result = {
        "schema": SCHEMA,
        **{name: counted[name] for name in COUNTS},
        "failures": len(failed),
        "states_per_s": round(states / seconds, 2),
        "board": "qemu",
        "seed": seed,
    }
    details = {
        "seconds": round(seconds, 1),
        "complete": cuts >= count,
        "failed": [
            {"kills": list(s.kills), "oracles": [f"{f.oracle}: {f.text}" for f in s.failures]} for s in failed
        ],
    }
    return result, details


def _undisturbed(place: World) -> float:
    machine = QemuMachine(place.binary, place.served)
    with machine:
        machine.load(place.base)
        start = time.monotonic()
        lives = machine.lives(place.script("new"))
        if lives[-1].exit_code != 0:
            raise BenchError("NO_GOLDEN_RUN", f"The undisturbed chip says:\n{lives[-1].console[-2000:]}")
        return time.monotonic() - start
