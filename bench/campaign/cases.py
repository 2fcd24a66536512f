"""What has to come of a line: a function of the line, the world, and what the flash says before the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.boards.flashmap import REGIONS, SECTOR_BYTES
from bench.campaign import bounds, lines, oracles
from bench.campaign.lines import CONTENT, CUT, LINK, LOSE, ROT, UNPLUG, Fault, Line
from bench.campaign.oracles import Case, Facts
from bench.campaign.record import ARMED, CONFIRMED, TRIAL, Control
from bench.campaign.updates import INSTALLED, ROLLED_BACK
from bench.campaign.world import World

# From which share of its chunks on a bundle is wrong; of the others it is the last chunk, or none.
_SPOILT_FROM = {
    "random": 0,
    "empty": 0,
    "dribble": 0,
    "endless": 0,
    "shifted": 0,
    "oversized": 0,
    "swapped": 0.5,
}
_MANY_STARTS = {UNPLUG, lines.ALONE, lines.RESTART}
_MANY_LIVES = 20
_BOUNDED = {CUT, LOSE, LINK, lines.LATE}  # kinds that cost a few chunks each


def expected(world: World, line: Line, known: Mapping[str, int]) -> Case:
    """How a line has to end; `known`: every order a guest may have placed."""
    update = world.goldens[line.golden].update
    offered = world.releases[update.offer]
    kinds = {fault.kind for fault in line.faults}
    where = {_region(fault.number) for fault in line.faults if fault.kind == ROT}
    case = Case(
        update.offer,
        update.outcome,
        # the control record is written twice: rot in one copy must not show
        rotten="vfs" in where or bool(update.flashed),
        lossy=next((name for name in ("journal", "counters") if name in where), ""),
        max_lives=oracles.MAX_LIVES if update.outcome == INSTALLED else oracles.MAX_LIVES_OF_BAD,
        known=known,
        reasons=update.reasons,
    )
    if kinds <= _BOUNDED:
        most = offered.chunks + bounds.CHUNKS_PER_FAULT * len(line.faults)
        case = replace(case, most_chunks=most)
    if not offered.starts and (line.faults == (Fault(CUT, 0),) or kinds == {lines.LATE}):
        case = replace(case, tries=bounds.MAX_TRIES)
    if _has_lost_identity(world, line):
        return replace(case, outcome=INSTALLED, nameless=True, max_lives=oracles.MAX_LIVES_OF_BAD)
    if CONTENT in kinds:
        return _of_content(world, line, case)
    return _of_starts(line, kinds, case)


def _of_content(world: World, line: Line, case: Case) -> Case:
    """A server that sends what is wrong, in the first life."""
    names = {fault.name for fault in line.faults}
    if names & world.rotations.keys():
        return case
    share = next((_SPOILT_FROM[name] for name in names if name in _SPOILT_FROM), None)
    spoilt_from = None if share is None else int(world.releases[case.offered].chunks * share)
    return replace(case, refused=True, hostile=bool(names & world.hostile), spoilt_from=spoilt_from)


def _of_starts(line: Line, kinds: set[str], case: Case) -> Case:
    """An operator, the plug, or an application that does not go on."""
    if lines.CANCEL in kinds:
        most, why = oracles.MAX_LIVES, frozenset({oracles.CANCELLED})
        return replace(case, outcome=ROLLED_BACK, max_lives=most, reasons=why)
    if kinds & {lines.HANG, lines.BROWNOUT}:
        tries, starts = (bounds.MAX_TRIES, 0) if lines.HANG in kinds else (0, bounds.MAX_STARTS)
        most = _MANY_LIVES
        return replace(case, outcome=ROLLED_BACK, max_lives=most, tries=tries, starts=starts)
    if lines.UNFIT in kinds:
        tried = bounds.MAX_TRIES
        most = _MANY_LIVES
        return replace(case, outcome=ROLLED_BACK, max_lives=most, tries=tried, starts=tried)
    if lines.CRASH in kinds:
        most, why = _MANY_LIVES, frozenset({oracles.CRASH_LOOP})
        return replace(case, outcome=ROLLED_BACK, max_lives=most, reasons=why, crashes=True)
    if line.faults[-1].kind == lines.ALONE:
        case = replace(case, starts=line.faults[-1].number + 1)
    return replace(case, max_lives=_MANY_LIVES) if kinds & _MANY_STARTS else case


def first(world: World, line: Line, control: Control | None, facts: Facts) -> str:
    """The release that has to run first where the one in use rotted or does not fit; empty if that is not
    known. `control`: the record in force.
    """
    active = next((r.name for r in world.releases.values() if control and r.digest == control.hash), "")
    cuts = [fault.kind for fault in line.faults].count(CUT)
    if control is None or active not in facts.spoilt or cuts != 1:
        return ""
    if control.state in (ARMED, TRIAL):
        return ""  # the one on trial comes first
    before = "old" if active == world.goldens[line.golden].update.offer else "five"
    is_kept = control.state == CONFIRMED and not control.quarantined and before not in facts.spoilt
    return before if is_kept else oracles.FACTORY


def _has_lost_identity(world: World, line: Line) -> bool:
    """Whether a bit of either copy of the identity rots."""
    start = REGIONS["identity"].start
    size = len(world.identity) - SECTOR_BYTES  # of one copy; the second begins a sector behind
    places = [fault.number // 8 - start for fault in line.faults if fault.kind == ROT]
    spoilt = {at // SECTOR_BYTES for at in places if 0 <= at % SECTOR_BYTES < size}
    return spoilt >= {0, 1}


def _region(bit: int) -> str:
    return next(name for name, region in REGIONS.items() if 0 <= bit // 8 - region.start < region.size)
