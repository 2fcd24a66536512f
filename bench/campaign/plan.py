"""Which lines a campaign plays, in which order: a function of the world and the seed alone.

First-order states are told apart by the hash of the flash they leave, before anything is booted. Their order
is shuffled, so that a campaign that ends early has seen some of everything; second cuts follow the state
whose recovery they fall into. Two updates are cut everywhere; of the others a sample is played early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from bench.boards.flashmap import FLASH_BYTES, REGIONS, SECTOR_BYTES
from bench.campaign import lines
from bench.campaign.lines import CANCEL, CONTENT, CUT, LATE, LINK, LOSE, ROT, TWICE, UNPLUG, Fault, Line
from bench.campaign.player import CONTENTS, Outcome, apply
from bench.campaign.trace import PAGE_BYTES, FlashState, Step
from bench.campaign.updates import WHOLE
from bench.campaign.world import Golden, World

SLOTS = "slots"  # for `near`: rot in a release in its slot

_ORDERS_OF_A_GROUP = 6
_ROTS = 800
_ROTTING = ("control", "counters", "journal", "vfs", "vfs", "vfs")
_ROTS_OF_A_RECORD = 6
_ROTS_OF_A_COPY = 24  # of the identity
_ROTS_OF_BOTH = 16
_SECONDS_OF_BAD = 1
_UNPLUGS = 8  # below the bound of ten starts
_ALONE = 12  # above it
_RESTARTS = 12  # above the bound of five starts after a crash
_EXHAUSTIVE = 8  # states whose recovery is cut at every step
_CUTS_OF_A_SAMPLE = 20  # of an update that is not cut everywhere
_LINK_CUTS_OF_A_SAMPLE = 4
_LATE_S = 5


@dataclass(frozen=True)
class Task:
    """One first-order line; `seconds`: how many second cuts follow it, -1 for one at every step."""

    line: Line
    seconds: int


def tasks(world: World, seed: int, seconds: int) -> list[Task]:
    """Every task of a campaign in order; at most `seconds` second cuts for each first one."""
    random = Random(seed)
    found: list[Task] = []
    seen: set[int] = set()
    for name in WHOLE:
        golden = world.goldens[name]
        few = seconds if name == "new" else min(seconds, _SECONDS_OF_BAD)
        fresh = []
        for line, digest in _cuts(world, golden, name, random):
            if digest not in seen:
                seen.add(digest)
                fresh.append(Task(line, few))
        if name == "new" and seconds:
            for n in range(_EXHAUSTIVE):
                place = (len(fresh) - 1) * n // (_EXHAUSTIVE - 1)
                fresh[place] = Task(fresh[place].line, -1)
        found += fresh
    found += [Task(line, 0) for line in _rots(world, random)]
    random.shuffle(found)
    return [Task(line, 0) for line in _few(world, random)] + found


def _few(world: World, random: Random) -> list[Line]:
    """Faults of which there are few: those outside the flash, those of updates that are only sampled, rot in
    a release, and rot in either copy of every new record."""
    found = [*without_flash(world), *_sampled(world, random), *rotten_slots(world, random)]
    control = REGIONS["control"]
    for number, step in enumerate(world.goldens["new"].trace.steps, start=1):
        if not step.is_erase and step.lies_in(control):
            for _ in range(_ROTS_OF_A_RECORD):
                bit = step.offset * 8 + random.randrange(len(step.data) * 8)
                found.append(Line("new", (Fault(CUT, number), Fault(ROT, bit))))
    found += _nameless(world, random)
    random.shuffle(found)
    return found


def _sampled(world: World, random: Random) -> Iterator[Line]:
    """Cuts here and there in the updates that are not cut everywhere."""
    for name, golden in world.goldens.items():
        if name in WHOLE:
            continue
        steps = golden.trace.steps
        yield Line(name, (Fault(CUT, 0),))
        yield Line(name, (Fault(CUT, len(steps)),))
        for number in sorted(random.sample(range(len(steps)), min(len(steps), _CUTS_OF_A_SAMPLE))):
            yield Line(name, (random.choice([Fault(CUT, number), *tears(number, steps[number], random)]),))
    messages = range(1, world.goldens["long"].messages + 1)
    for number in random.sample(messages, min(len(messages), _LINK_CUTS_OF_A_SAMPLE)):
        yield Line("long", (Fault(LINK, number),))


def rotten_slots(world: World, random: Random) -> Iterator[Line]:
    """One bit of a release in its slot flips behind every change of the control record: of the release in
    use, of the one that was offered, and of both."""
    control = REGIONS["control"]
    for name in WHOLE:
        golden = world.goldens[name]
        state = FlashState(world.base)
        stages = [0]
        for number, step in enumerate(golden.trace.steps):
            if step.lies_in(control) and not step.is_erase:
                stages.append(number + 1)
        done = 0
        for cut in (*stages, len(golden.trace.steps)):
            state.apply(golden.trace.steps[done:cut])
            done = cut
            rots = [
                Fault(ROT, bit)
                for release in ("old", golden.update.offer)
                if (bit := _bit_of(state, world.releases[release].sector, random)) is not None
            ]
            yield from (Line(name, (Fault(CUT, cut), rot)) for rot in rots)
            if len(rots) > 1:
                yield Line(name, (Fault(CUT, cut), *rots))


def _bit_of(state: FlashState, sector: bytes, random: Random) -> int | None:
    """A bit of the one sector that has this content; None if there is none, or more than one."""
    vfs = REGIONS["vfs"]
    places = range(vfs.start, vfs.start + vfs.size, SECTOR_BYTES)
    likely = [at for at in places if state.read(at, PAGE_BYTES) == sector[:PAGE_BYTES]]
    found = [at for at in likely if state.read(at, SECTOR_BYTES) == sector]
    return found[0] * 8 + random.randrange(SECTOR_BYTES * 8) if len(found) == 1 else None


def _nameless(world: World, random: Random) -> Iterator[Line]:
    """Rot in one copy of the identity, which must not show, and in both."""
    steps = world.goldens["new"].trace.steps
    start = REGIONS["identity"].start
    copies = (start * 8, (start + SECTOR_BYTES) * 8)
    bits = 8 * (len(world.identity) - SECTOR_BYTES)
    for copy in copies:
        for _ in range(_ROTS_OF_A_COPY):
            yield Line("new", (_anywhere(len(steps), random), Fault(ROT, copy + random.randrange(bits))))
    for _ in range(_ROTS_OF_BOTH):
        rots = [Fault(ROT, copy + random.randrange(bits)) for copy in copies]
        yield Line("new", (_anywhere(len(steps), random), *rots))


def _anywhere(steps: int, random: Random) -> Fault:
    return Fault(CUT, random.randrange(steps + 1))


def _cuts(world: World, golden: Golden, name: str, random: Random) -> Iterator[tuple[Line, int]]:
    """Before, after and inside every step; out of order within every sync group."""
    base = FlashState(world.base)
    state = FlashState.copy_of(base)
    steps = golden.trace.steps
    for number, step in enumerate(steps):
        yield Line(name, (Fault(CUT, number),)), state.hash
        for fault in tears(number, step, random):
            torn = state.torn(step, fault.tear)
            yield Line(name, (fault,)), state.hash_with(torn)
        state.apply([step])
    yield Line(name, (Fault(CUT, len(steps)),)), state.hash
    for number in range(len(golden.trace.groups())):
        for _ in range(_ORDERS_OF_A_GROUP):
            fault = Fault(LOSE, number, seed=random.randrange(1, 1 << 31))
            state = FlashState.copy_of(base)
            apply(state, golden.trace, fault)
            yield Line(name, (fault,)), state.hash


def near(world: World, seed: int, where: str, seconds: int) -> Iterator[Task]:
    """The lines that touch one thing, single faults first, and every update undisturbed: a region of the
    flash, an update, a kind of fault, one fault in full (`content=random`), or releases in their slots."""
    random = Random(seed)
    if where == SLOTS:
        yield from (Task(line, 0) for line in rotten_slots(world, random))
    for line in [*_few(world, random), *(_rots(world, random) if where == ROT else ())]:
        if where in (line.golden, line.faults[-1].kind, str(line.faults[-1])) and where not in WHOLE:
            yield Task(line, 0)
    yield from (Task(Line(name, (Fault(CUT, 0),)), 0) for name in world.goldens)
    cuts = []
    for name, golden in world.goldens.items():
        if name not in (*WHOLE, where):
            continue
        regions = [where] if where in REGIONS else [*REGIONS] if where == name else []
        for number, step in enumerate(golden.trace.steps):
            if any(step.lies_in(REGIONS[region]) for region in regions):
                for fault in (Fault(CUT, number), random.choice(tears(number, step, random))):
                    cuts.append(Line(name, (fault,)))
    random.shuffle(cuts)
    for found in (0, seconds):
        yield from (Task(line, found) for line in cuts)


def tears(number: int, step: Step, random: Random) -> list[Fault]:
    """Ways to interrupt one step: prefixes of even and odd length, single bytes, seeded bits."""
    size = len(step.data)
    keeps = {1, size // 2, size - 1, random.randrange(1, size, 2)}
    found = [Fault(CUT, number, keep) for keep in sorted(keeps)]
    for keep in (0, 0, 0, random.randrange(size)):
        found.append(Fault(CUT, number, keep, random.randrange(1, 1 << 31)))
    return found


def _rots(world: World, random: Random) -> Iterator[Line]:
    """Single bits of everything a terminal writes, at any moment of the update."""
    steps = world.goldens["new"].trace.steps
    state = FlashState(world.base)
    used = {page for page in range(FLASH_BYTES // PAGE_BYTES) if state.is_used(page)}
    done = 0
    for cut in sorted(random.randrange(len(steps) + 1) for _ in range(_ROTS)):
        state.apply(steps[done:cut])
        for page in {step.page for step in steps[done:cut]}:
            (used.add if state.is_used(page) else used.discard)(page)
        done = cut
        region = REGIONS[random.choice(_ROTTING)]
        pages = range(region.start // PAGE_BYTES, (region.start + region.size) // PAGE_BYTES)
        page = random.choice(sorted(used.intersection(pages)))
        bit = page * PAGE_BYTES * 8 + random.randrange(PAGE_BYTES * 8)
        yield Line("new", (Fault(CUT, cut), Fault(ROT, bit)))


def without_flash(world: World) -> Iterator[Line]:
    """Faults of the link, of the server's bytes, and of the one who holds the plug."""
    for number in range(1, world.goldens["new"].messages + 1):
        for fault in (Fault(LINK, number), Fault(LINK, number, after=True), Fault(TWICE, number)):
            yield Line("new", (fault,))
    for name in (*CONTENTS, *sorted(world.hostile), *world.rotations):
        yield Line("new", (Fault(CONTENT, name=name),))
    for number in range(1, _UNPLUGS + 1):
        yield Line("new", (Fault(UNPLUG, number),))
    for quarter in range(4):  # the first of them: on trial
        yield Line("new", (Fault(CANCEL, world.goldens["new"].messages * quarter // 4),))
    yield from (Line(name, (Fault(LATE, _LATE_S),)) for name in world.goldens)
    yield Line("new", (Fault(lines.HANG, 1),))
    yield Line("new", (Fault(lines.BROWNOUT, 12),))
    yield Line("new", (Fault(lines.ALONE, _ALONE),))
    yield Line("new", (Fault(lines.UNFIT, 1),))
    yield Line("new", (Fault(lines.UNFIT, 1), Fault(lines.ALONE, 1)))
    yield Line("new", (Fault(lines.CRASH, 1),))
    yield Line("new", (Fault(lines.RESTART, _RESTARTS),))


def second_cuts(outcome: Outcome, seed: int, wanted: int) -> list[Line]:
    """Cuts inside the recovery of a state: `wanted` of them, or one at every step for -1."""
    random = Random(f"{seed} {outcome.line}")
    steps = outcome.trace.steps
    numbers = (
        range(len(steps)) if wanted < 0 else sorted(random.sample(range(len(steps)), min(wanted, len(steps))))
    )
    found = []
    for number in numbers:
        ways = [Fault(CUT, number), *tears(number, steps[number], random)]
        found.append(outcome.line.then(random.choice(ways)))
    return found
