"""Bugs planted into the update's code on purpose: a campaign that misses one is not worth its name.

Each is a change of the terminal's own source, frozen into a process board of its own. It takes its place in
a terminal that is in service, made by the honest image; then the campaign runs until something fails.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import images
from bench.campaign import plan, run, world
from bench.errors import BenchError
from bench.paths import ROOT

SCHEMA = "tableside.mutants/1"
_SECOND_CUTS = 2
_DEFAULT_LIMIT_S = 90.0


@dataclass(frozen=True)
class Mutant:
    """One planted bug: in `file` (below firmware/terminal), each `old` text becomes the `new` one."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]

    def source(self) -> bytes:
        """The changed file. Raises: BenchError(STALE_MUTANT) when the code it changes is no longer there."""
        text = (ROOT / "firmware" / "terminal" / self.file).read_text()
        for old, new in self.changes:
            if text.count(old) != 1:
                raise BenchError(
                    "STALE_MUTANT", f"{self.name}: {self.file} has {text.count(old)} times {old!r}, not once."
                )
            text = text.replace(old, new)
        return text.encode()


def _change(name: str, file: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(name, file, changes)


MUTANTS = (
    _change(
        "confirm before the application ran",
        "ota/states.py",
        (
            "    return _move(state, _START, tries=tries, starts=state.starts + 1)",
            "    return confirmed(_move(state, _START, tries=tries, starts=state.starts + 1))",
        ),
    ),
    _change(
        "floor before confirm",
        "ota/states.py",
        ("other_floor=floor, reason=NONE)", "other_floor=floor, floor=max(floor, state.floor), reason=NONE)"),
    ),
    _change(
        "record erased in place",
        "ota/record.py",
        (
            "            other = 1 - self._sector\n            if",
            "            other = self._sector\n            if",
        ),
    ),
    _change(
        "CRC over part of the record",
        "ota/record.py",
        ("!= crc32(memoryview(record)[:_CRC_AT])", "!= crc32(memoryview(record)[:16])"),
        ("_CRC_AT, crc32(memoryview(record)[:_CRC_AT])", "_CRC_AT, crc32(memoryview(record)[:16])"),
    ),
    _change(
        "one copy of the record",
        "ota/record.py",
        ("record + record, pair", "record + bytes(b'\\xff' * 128), pair"),
    ),
    _change(
        "record programmed over torn bytes",
        "ota/record.py",
        (
            "            if page != _BLANK:\n                return pair + 1",
            "            if unpack(page[:_RECORD_BYTES]) is not None:\n                return pair + 1",
        ),
    ),
    _change(
        "download hash instead of installed hash",
        "ota/install.py",
        (
            "            if found != file_hash:\n                return False",
            "            if False:\n                return False",
        ),
    ),
    _change(
        "restart before the state is stored",
        "ota/agent.py",
        (
            "        self._store(states.armed(self.record.state))\n        self._reboot()",
            "        self._reboot()",
        ),
    ),
    _change(
        "torn record counts as whole",
        "flashlog.py",
        ("return n if crc == crc32(view[:crc_at]) else -1", "return n"),
    ),
    _change(
        "files left over in the slot",
        "ota/install.py",
        ("        _remove_tree(self._path)\n        _make", "        _make"),
        ('if sorted(_walk(base, "")) != sorted(wanted):', "if False:"),
    ),
    _change(
        "slot reused while it runs",
        "ota/states.py",
        (
            "        return SLOT_B if self.slot == SLOT_A else SLOT_A",
            "        return self.slot if self.slot != FACTORY else SLOT_A",
        ),
    ),
    _change(
        "trial spent by unplugging",
        "ota/loader.py",
        ("spent = board.reset_cause() != POWER_ON", "spent = True"),
    ),
    _change(
        "tries not counted", "ota/loader.py", ("spent = board.reset_cause() != POWER_ON", "spent = False")
    ),
    _change("starts not counted", "ota/states.py", ("tries=tries, starts=state.starts + 1)", "tries=tries)")),
    _change(
        "quarantine forgotten", "ota/states.py", ("quarantine=newest + tuple(state.quarantine)[:3],", "")
    ),
    _change("floor not checked", "ota/states.py", ("    if version < state.floor:", "    if False:")),
    _change(
        "hardware and site not checked",
        "ota/install.py",
        ('    if manifest.hardware != hardware or manifest.group not in ("", site):', "    if False:"),
    ),
    _change(
        "size not capped",
        "ota/install.py",
        ("    if not 0 < manifest.size <= MAX_BUNDLE_BYTES or chunks > MAX_CHUNKS:", "    if False:"),
    ),
    _change(
        "release key not checked against the root",
        "ota/agent.py",
        ("        if kid != certificate.public.kid:", "        if False:"),
        ("        if not await run_steps(signed):", "        if False:"),
    ),
    _change(
        "manifest signature not checked",
        "ota/agent.py",
        ("        if not await run_steps(signed):", "        if not await run_steps(signed) and False:"),
    ),
    _change(
        "resumed one chunk too far",
        "ota/install.py",
        (
            "self.manifest.size) // self.manifest.chunk_size",
            "self.manifest.size) // self.manifest.chunk_size + 1",
        ),
    ),
    _change(
        "confirmed slot not switched",
        "ota/states.py",
        (
            "        _CONFIRM,\n        slot=state.target(),\n",
            "        _CONFIRM,\n",
        ),
    ),
    _change(
        "reports what it has not got yet",
        "ota/agent.py",
        ("encode_ota_state(self._version, ", "encode_ota_state(max(self._version, state.other_version), "),
    ),
    _change(
        "rollback not reported",
        "ota/agent.py",
        ("            reason = state.reason\n", "            reason = states.NONE\n"),
    ),
    _change(
        "boot number used before it is stored",
        "counters.py",
        (
            "            self._put_u32(_BOOT, self.boots() + 1)",
            '            self._set(_BOOT, struct.pack(">I", self.boots() + 1))',
        ),
    ),
    _change(
        "journal header before the records it carries",
        "flashlog.py",
        ("        try:\n            save()\n            head", "        try:\n            head"),
        ("            valid = True", "            save()\n            valid = True"),
    ),
)


def hunt(seed: int, limit_s: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Plant every bug and look for it, `limit_s` seconds each at most -> the table as JSON values.

    Raises: BenchError, images.ImageError.
    """
    honest = world.build(images.build("process").path)
    limit_s = limit_s or _DEFAULT_LIMIT_S
    rows = [find(mutant, honest, seed, limit_s, say) for mutant in MUTANTS]
    return {"schema": SCHEMA, "seed": seed, "mutants": rows}


def find(
    mutant: Mutant, honest: world.World, seed: int, limit_s: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Look for one planted bug -> {"name", "caught", "by", "seconds"}; the seconds are without the build."""
    binary = images.build_changed({f"terminal/{mutant.file}": mutant.source()})
    start = time.monotonic()
    try:
        caught_by = _failure(honest, binary, seed, limit_s)
    finally:
        shutil.rmtree(binary.parent)
    seconds = round(time.monotonic() - start, 1)
    say(f"{'caught  ' if caught_by else 'SURVIVED'} {seconds:6.1f} s  {mutant.name:45}  {caught_by}")
    return {"name": mutant.name, "caught": bool(caught_by), "by": caught_by, "seconds": seconds}


def _failure(honest: world.World, binary: Any, seed: int, limit_s: float) -> str:
    """What gave the bug away, empty if nothing did."""
    try:
        place = world.on(honest, binary)
    except BenchError as error:
        return f"{error.code}: not even the undisturbed update works"
    tasks = plan.tasks(place, seed, _SECOND_CUTS)
    tally = run.campaign(place, seed, tasks, budget_s=limit_s, stop_at=1)
    if not tally.failed:
        return ""
    first = tally.failed[0]
    return f"{first.failures[0].oracle} at {first.line}: {first.failures[0].text}"[:160]
