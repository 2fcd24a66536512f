"""Bugs planted into the update's code on purpose: a campaign that misses one is not worth its name.

Each is a change of the terminal's own source. One process board has all of them frozen in beside the honest
modules, and a start chooses one (firmware/boards/process/frozen.c). It takes its place in a terminal that is
in service, made by the honest image. Then it is looked for: first in the lines that should show it (`where`),
and if those do not, in the whole campaign.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import images
from bench.campaign import plan, run, world
from bench.campaign.player import Outcome, Player
from bench.errors import BenchError
from bench.mutants.ota_lasting import LASTING
from bench.mutants.ota_seldom import SELDOM
from bench.mutants.planted import Mutant, change

SCHEMA = "tableside.mutants/1"
_SECOND_CUTS = 2
_DEFAULT_BUDGET_S = 240.0
_LONGEST_S = 60.0
_WORKERS = 2


MUTANTS = (
    change(
        "confirm before the application ran",
        "ota/states.py",
        "bad",
        (
            "    return _move(state, _START, tries=tries, starts=state.starts + 1)",
            "    return confirmed(_move(state, _START, tries=tries, starts=state.starts + 1))",
        ),
    ),
    change(
        "floor before confirm",
        "ota/states.py",
        "control",
        ("other_floor=floor, reason=NONE)", "other_floor=floor, floor=max(floor, state.floor), reason=NONE)"),
    ),
    change(
        "record erased in place",
        "ota/record.py",
        "control",
        (
            "            other = 1 - self._sector\n            if",
            "            other = self._sector\n            if",
        ),
    ),
    change(
        "CRC over part of the record",
        "ota/record.py",
        "control",
        ("!= crc32(memoryview(record)[:_CRC_AT])", "!= crc32(memoryview(record)[:16])"),
        ("_CRC_AT, crc32(memoryview(record)[:_CRC_AT])", "_CRC_AT, crc32(memoryview(record)[:16])"),
    ),
    change(
        "one copy of the record",
        "ota/record.py",
        "rot",
        ("record + record, pair", "record + bytes(b'\\xff' * 128), pair"),
    ),
    change(
        "record programmed over torn bytes",
        "ota/record.py",
        "control",
        (
            "            if page != _BLANK:\n                return pair + 1",
            "            if unpack(page[:_RECORD_BYTES]) is not None:\n                return pair + 1",
        ),
    ),
    change(
        "download hash instead of installed hash",
        "ota/install.py",
        "rot",
        (
            "            if found != file_hash:\n                return False",
            "            if False:\n                return False",
        ),
    ),
    change(
        "restart before the state is stored",
        "ota/agent.py",
        "control",
        (
            "        self._store(states.armed(self.record.state))\n        self._reboot()",
            "        self._reboot()",
        ),
    ),
    change(
        "torn record counts as whole",
        "flashlog.py",
        "journal",
        ("return n if crc == crc32(view[:crc_at]) else -1", "return n"),
    ),
    change(
        "files left over in the slot",
        "ota/install.py",
        "vfs",
        ("        yield from _remove_steps(self._path)\n", ""),
        ("        if sorted(present) != sorted(wanted):", "        if False:"),
    ),
    change(
        "slot reused while it runs",
        "ota/states.py",
        "vfs",
        (
            "        return SLOT_B if self.slot == SLOT_A else SLOT_A",
            "        return self.slot if self.slot != FACTORY else SLOT_A",
        ),
    ),
    change(
        "cancelled trial goes on running",
        "ota/agent.py",
        "cancel",
        ("        if on_trial:\n            self._reboot()", "        if on_trial:\n            pass"),
    ),
    change(
        "update staged into the slot that runs",
        "ota/agent.py",
        "cancel",
        ("        if on_trial:\n            self._reboot()", "        if on_trial:\n            pass"),
        ("        if self._runs_in(state.target()):", "        if False:"),
    ),
    change(
        "trial spent by unplugging",
        "ota/loader.py",
        "unplug",
        ("spent = board.reset_cause() != POWER_ON", "spent = True"),
    ),
    change(
        "tries not counted",
        "ota/loader.py",
        "bad",
        ("spent = board.reset_cause() != POWER_ON", "spent = False"),
    ),
    change(
        "starts not counted",
        "ota/states.py",
        "brownout",
        ("tries=tries, starts=state.starts + 1)", "tries=tries)"),
    ),
    change(
        "quarantine forgotten",
        "ota/states.py",
        "bad",
        ("quarantine=newest + tuple(state.quarantine)[:3],", ""),
    ),
    change(
        "floor not checked",
        "ota/states.py",
        "content=below-floor",
        ("    if version < state.floor:", "    if False:"),
    ),
    change(
        "hardware and site not checked",
        "ota/install.py",
        "content=wrong-chip",
        ('    if manifest.hardware != hardware or manifest.group not in ("", site):', "    if False:"),
    ),
    change(
        "size not capped",
        "ota/install.py",
        "content=oversized-bundle",
        ("    if not 0 < manifest.size <= MAX_BUNDLE_BYTES or chunks > MAX_CHUNKS:", "    if False:"),
    ),
    change(
        "release key not checked against the root",
        "ota/agent.py",
        "content=forged-manifest",
        ("        if kid != certificate.public.kid:", "        if False:"),
        ("        if not await run_steps(signed):", "        if False:"),
    ),
    change(
        "manifest signature not checked",
        "ota/agent.py",
        "content=altered-manifest",
        ("        if not await run_steps(signed):", "        if not await run_steps(signed) and False:"),
    ),
    change(
        "root not checked on rotation",
        "ota/rotation.py",
        "content=rotation-without-root",
        (
            '    after = yield from certificate_steps(root, new, RELEASE, "")',
            "    after = parse_certificate(sign1_parse(new)[1])",
        ),
    ),
    change(
        "old key not checked on rotation",
        "ota/rotation.py",
        "content=rotation-without-old-key",
        (
            "        if not (yield from sign1_verify_steps(",
            "        if key is after.public and not (yield from sign1_verify_steps(",
        ),
    ),
    change(
        "newer release key taken without a rotation",
        "ota/authority.py",
        "content=unnamed-key",
        ("        if known and epoch != known:", "        if epoch < known:"),
    ),
    change(
        "resumed one chunk too far",
        "ota/install.py",
        "vfs",
        (
            "self.manifest.size) // self.manifest.chunk_size",
            "self.manifest.size) // self.manifest.chunk_size + 1",
        ),
    ),
    change(
        "confirmed slot not switched",
        "ota/states.py",
        "control",
        (
            "        _CONFIRM,\n        slot=state.target(),\n",
            "        _CONFIRM,\n",
        ),
    ),
    change(
        "reports what it has not got yet",
        "ota/agent.py",
        "control",
        ("encode_ota_state(self._version, ", "encode_ota_state(max(self._version, state.other_version), "),
    ),
    change(
        "rollback reported under another bundle's name",
        "ota/agent.py",
        "bad",
        ("            return state.quarantine[0]\n", "            return state.hash\n"),
    ),
    change(
        "rollback not reported",
        "ota/agent.py",
        "bad",
        ("            reason = state.reason\n", "            reason = states.NONE\n"),
    ),
    change(
        "checksum of the identity not checked",
        "wire/keys.py",
        "rot",
        (
            '    if binascii.crc32(body) != int.from_bytes(record[8 + size : 12 + size], "big"):',
            "    if False:",
        ),
    ),
    change(
        "second copy of the identity not read", "identity.py", "rot", ("in range(_COPIES):", "in range(1):")
    ),
    change(
        "boot number used before it is stored",
        "counters.py",
        "counters",
        (
            "            self._put_u32(_BOOT, self.boots() + 1)",
            '            self._set(_BOOT, struct.pack(">I", self.boots() + 1))',
        ),
    ),
    change(
        "journal header before the records it carries",
        "flashlog.py",
        "journal",
        ("        try:\n            save()\n            head", "        try:\n            head"),
        ("            valid = True", "            save()\n            valid = True"),
    ),
    *SELDOM,
    *LASTING,
)


def hunt(seed: int, budget_s: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Plant every bug and look for it, `budget_s` seconds for all of them -> the table as JSON values.

    Raises: BenchError, images.ImageError.
    """
    say(f"one process board with {len(MUTANTS)} planted bugs is built, if it is not there")
    binary = image()
    honest = world.build(images.build("process").path)
    deadline = time.monotonic() + (budget_s or _DEFAULT_BUDGET_S)
    rows = []
    with ProcessPoolExecutor(_WORKERS, get_context("fork"), run.be_a_worker) as pool:
        looks = [pool.submit(find, mutant, honest, binary, seed, deadline) for mutant in MUTANTS]
        try:
            for look in looks:
                rows.append(look.result())
                caught = "caught  " if rows[-1]["caught"] else "SURVIVED"
                say(f"{caught} {rows[-1]['seconds']:6.1f} s  {rows[-1]['name']:45}  {rows[-1]['by']}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return {"schema": SCHEMA, "seed": seed, "mutants": rows}


def image() -> Path:
    """The process board that has every bug in it. Raises: BenchError(STALE_MUTANT), images.ImageError."""
    return images.build_changed({mutant.frozen: mutant.source() for mutant in MUTANTS})


def find(mutant: Mutant, honest: world.World, binary: Path, seed: int, deadline: float) -> dict[str, Any]:
    """Look for one planted bug for a minute, or until the deadline (of `time.monotonic`), but never without
    a look -> {"name", "caught", "by", "seconds"}.
    """
    start = time.monotonic()
    caught_by = _failure(mutant, honest, binary, seed, min(deadline, start + _LONGEST_S))
    seconds = round(time.monotonic() - start, 1)
    return {"name": mutant.name, "caught": bool(caught_by), "by": caught_by, "seconds": seconds}


def _failure(mutant: Mutant, honest: world.World, binary: Path, seed: int, deadline: float) -> str:
    """What gave the bug away, empty if nothing did."""
    try:
        place = world.on(honest, binary, f"terminal/{mutant.file}={mutant.frozen}")
    except BenchError as error:
        return f"{error.code}: not even the undisturbed update works"
    with Player(place) as player:
        for task in _likely_first(place, mutant.where, seed):
            outcome = player.play(task.line)
            if outcome.failures:
                return _in_words(outcome)
            for line in plan.second_cuts(outcome, seed, task.seconds):
                second = player.play_second(outcome, line)
                if second.failures:
                    return _in_words(second)
            if time.monotonic() > deadline:
                break
    return ""


def _likely_first(place: world.World, where: str, seed: int) -> Iterator[plan.Task]:
    yield from plan.near(place, seed, where, _SECOND_CUTS)
    yield from plan.tasks(place, seed, _SECOND_CUTS)


def _in_words(outcome: Outcome) -> str:
    first = outcome.failures[0]
    return f"{first.oracle} at {outcome.line}: {first.text}"[:160]
