"""Which lines the campaign for firmware images plays, in which order: a function of steps and seed alone.

A line looks like those of the campaign for applications: `new cut=137:keep=9 cut=12`. What is added:

    first ..., bad ...           a chip flashed by cable takes its first image; an image that does not start
    new-norollback ...           the same with a bootloader that was built without rollback
    new chip=deaf-set-boot       esp_ota_set_boot_partition does nothing once, and does not say so
    new chip=deaf-mark-valid     neither does esp_ota_mark_app_valid_cancel_rollback
    new chip=weak-page           a page of the image does not take what is programmed, once
    bad chip=sick                the bad image gets as far as the application, and does not confirm
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from bench.boards.flashmap import REGIONS
from bench.campaign import plan
from bench.campaign.image_player import APPS_AT, NO_ROLLBACK, OTADATA_AT, Goldens, Steps, Verdict
from bench.campaign.lines import CHIP, CUT, ROT, Fault, Line
from bench.campaign.plan import Task
from bench.campaign.trace import Step

CHIPS = ("new chip=deaf-set-boot", "new chip=deaf-mark-valid", "new chip=weak-page", "bad chip=sick")
_TEARS_OF_AN_IMAGE = 3  # of a step in an app partition: there are many, and they are alike
_WITH_SECONDS = 8  # second cuts follow every eighth cut
_ROTS_OF_A_RECORD = 4
_ROTS_OF_AN_IMAGE = 40


def tasks(goldens: Goldens, seed: int, seconds: int) -> list[Task]:
    """Every task of a campaign in order; `seconds`: second cuts into the recovery of every eighth cut."""
    random = Random(seed)
    found: list[Task] = []
    for name, steps in goldens.items():
        for number, (offset, size) in enumerate(steps):
            found.append(Task(Line(name, (Fault(CUT, number),)), 0 if number % _WITH_SECONDS else seconds))
            tears = plan.tears(number, Step(offset, bytes(size)), random)
            if offset >= APPS_AT:
                tears = random.sample(tears, _TEARS_OF_AN_IMAGE)
            found += [Task(Line(name, (fault,)), 0) for fault in tears]
        found.append(Task(Line(name, (Fault(CUT, len(steps)),)), 0))
        found += [Task(line, 0) for line in _rots(name, steps, random)]
    random.shuffle(found)
    return [*_chips(goldens), *found]


def near(goldens: Goldens, seed: int, seconds: int) -> list[Task]:
    """The same, what touches records and otadata first: where a bug shows soonest."""
    found = tasks(goldens, seed, seconds)
    return sorted(found, key=lambda task: not _is_state(task.line, goldens))


def _is_state(line: Line, goldens: Goldens) -> bool:
    first = line.faults[0]
    if first.kind != CUT or first.number == len(goldens[line.golden]):
        return True
    offset = goldens[line.golden][first.number][0]
    return offset < REGIONS["vfs"].start or OTADATA_AT <= offset < APPS_AT


def _chips(goldens: Goldens) -> Iterator[Task]:
    for text in CHIPS:
        name, _, fault = text.partition(" chip=")
        for update in (name, name + NO_ROLLBACK):
            if update in goldens and not (fault == "sick" and update.endswith(NO_ROLLBACK)):
                yield Task(Line(update, (Fault(CHIP, name=fault),)), 0)


def _rots(name: str, steps: Steps, random: Random) -> Iterator[Line]:
    """Single bits of the record right after it was written, and of what is there of the new image."""
    record = REGIONS["image"]
    for number, (offset, size) in enumerate(steps, start=1):
        if record.start <= offset < record.start + record.size:
            for _ in range(_ROTS_OF_A_RECORD):
                yield _rot(name, number, offset, size, random)
    written = [number for number, (offset, _) in enumerate(steps) if offset >= APPS_AT]
    if name.startswith("bad"):
        return  # what is wrong with that one is known already
    for _ in range(_ROTS_OF_AN_IMAGE):
        number = random.choice(written)
        yield _rot(name, random.randrange(number + 1, len(steps) + 1), *steps[number], random)


def _rot(name: str, cut: int, offset: int, size: int, random: Random) -> Line:
    return Line(name, (Fault(CUT, cut), Fault(ROT, offset * 8 + random.randrange(size * 8))))


def second_cuts(verdict: Verdict, seed: int, wanted: int) -> list[Line]:
    """Cuts inside the recovery of a state, at most `wanted`."""
    random = Random(f"{seed} {verdict.line}")
    sizes = verdict.sizes
    found = []
    for number in sorted(random.sample(range(len(sizes)), min(wanted, len(sizes)))):
        ways = [Fault(CUT, number), *plan.tears(number, Step(0, bytes(sizes[number])), random)]
        found.append(verdict.line.then(random.choice(ways)))
    return found
