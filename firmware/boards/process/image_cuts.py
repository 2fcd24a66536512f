# Runs on MicroPython: firmware updates of a modelled chip (image_chip.py), interrupted at any flash step.
#
# Arguments: the firmware's folder and a JSON file, the job (bench/campaign/image_player.py writes it). Then a
# request per line on standard input, each answered by a line that begins with "@answer "; what else is
# printed is the terminal's console.
#
#   {"do": "goldens"}                    -> {update: [[offset, size], ...] for every step of it}
#   {"do": "play", "line", "sizes"}      -> {"hash", "failed": [[oracle, text]], "starts", "sizes" of the
#                                           steps of the recovery, if asked for}
#   {"do": "export", "line", "file"}     -> {"hash", "bytes"}
#   any of them, for a line that fits no state of this campaign: {"refused": text}
#
# A golden update is run once with every flash step on record. A line (docs/firmware-images.md) names it and
# what goes wrong: its steps happen up to a cut, a bit rots, or the chip does not do as it is told. The state
# that leaves is started, and followed until the terminal is content:
#   boots       the bootloader finds an image it starts, always
#   truth       what the terminal tells is what runs: release and partition; a cut alone makes it speak ill of
#               no good image
#   confirmed   an image that is on record as confirmed is one that the bootloader keeps starting
#   floor       the version floor does not fall
#   converges   after a bounded number of starts the new image is confirmed; a bad one is rolled back,
#               reported and not taken again
#   flash       no program step asks for a bit to be set; the image that runs is never written to

import json
import sys

sys.path.insert(0, sys.argv[1])
sys.path.insert(1, sys.argv[1] + "/boards/process")

import image_chip
from image_chip import APPS_AT, CONTENT, CRASH, POWER_ON, RESET, RESTART, SECTOR, WATCHDOG, Broken
from partitions import UNDEFINED, VALID
from terminal.ota import states

_MAX_LIVES = 8
_CAUSES = {CONTENT: POWER_ON, RESTART: RESET, CRASH: WATCHDOG}  # of the start after a life that ended so
_SAID = {POWER_ON: "power on", RESET: "reset", WATCHDOG: "watchdog"}
_WEAK_SECTOR = 2  # of the image
_NO_ROLLBACK = "-norollback"
_WHOLE = -1
_EXCUSES = (states.NONE, states.CANCELLED, states.ALREADY_THERE)


class BadLine(Exception):
    pass


# ---------------------------------------------------------------- a recovery and its verdict


class Case:
    # What an update has to come to. rotten: a bit of an image has flipped, a reported rollback will do.
    # weak: a page does not take what is programmed, which has to be noticed. excuses: the only reasons a good
    # image may give, None where any will do.
    def __init__(self, offered, releases, rotten=False, weak=False, excuses=None):
        self.offered = offered
        self.releases = releases
        self.rotten = rotten
        self.weak = weak
        self.excuses = excuses

    def is_done(self, chip):
        state = chip.record()
        if state.state != states.CONFIRMED:
            return False
        if self.offered.is_bad or (self.rotten and state.is_quarantined(self.offered.digest)):
            return state.is_quarantined(self.offered.digest)
        return state.hash == self.offered.digest

    def check_end(self, chip):
        running = image_chip.release_of(chip, chip.machine.running, self.releases)
        reasons = [told[4] for told in chip.told]
        if self.offered.is_bad:
            wanted = states.FELL_BACK if chip.machine.rollback else states.TRIES_SPENT
            if running is self.offered or wanted not in reasons:
                raise Broken("truth", "the fallback was not reported")
        elif self.rotten and chip.record().is_quarantined(self.offered.digest):
            if running is self.offered or not [reason for reason in reasons if reason]:
                raise Broken("truth", "the rollback was not reported")
        elif running is not self.offered:
            raise Broken("confirmed", "another image runs than the confirmed one")
        wrong = [] if self.excuses is None else [reason for reason in reasons if reason not in self.excuses]
        if wrong:
            raise Broken("truth", "a good image was refused or rolled back: " + states.REASONS[wrong[0]])
        if self.weak and states.BAD_BYTES not in reasons:
            raise Broken("truth", "an image that reads back otherwise was not noticed")

    def check_refused(self, chip):
        # The image that failed is offered once more.
        before = len(chip.told)
        _live(chip, self, POWER_ON)
        if states.QUARANTINED not in [told[4] for told in chip.told[before:]]:
            raise Broken("converges", "the image that failed is taken again")


def _live(chip, case, cause):
    print("--- " + _SAID[cause])
    chip.cause = cause
    return image_chip.life(chip, case.offered, case.releases)


def follow(chip, case):
    # Start after start until the update is over -> number of starts. Raises Broken.
    floor = chip.record().floor
    cause = POWER_ON
    for n in range(_MAX_LIVES):
        end = _live(chip, case, cause)
        check_record(chip)
        if chip.record().floor < floor:
            raise Broken("floor", "it fell")
        if end == CONTENT and case.is_done(chip):
            case.check_end(chip)
            if case.offered.is_bad:
                case.check_refused(chip)
            return n + 1
        cause = _CAUSES[end]  # a content one is unplugged, and offered the same again
    raise Broken("converges", f"not over after {_MAX_LIVES} starts: {chip.record()}")


def check_record(chip):
    # What is confirmed on record is what the bootloader starts from now on.
    if chip.nor.violations:
        raise Broken("flash", "a bit was to be set")
    state = chip.record()
    if state.state != states.CONFIRMED or state.hash == states.NO_HASH:
        return
    otadata = chip.machine.otadata
    active = otadata.active()
    if active < 0 or chip.machine.boot_number() != state.slot:
        raise Broken("confirmed", "the bootloader starts another image than the confirmed one")
    if otadata.read()[active][1] not in (VALID, UNDEFINED):
        raise Broken("confirmed", "the bootloader will take the confirmed image back")


# ---------------------------------------------------------------- chips that do not do as they are told


def _deaf(chip, name):
    # One call of esp_ota_ops does nothing, once, and does not say so.
    honest = getattr(chip.machine, name)

    def nothing(*arguments):
        setattr(chip.machine, name, honest)

    setattr(chip.machine, name, nothing)


def _weak(chip):
    # The first page of a sector of the image does not take what is programmed, once.
    chip.nor.weak_at = chip.machine.apps[1 - chip.record().slot][1] + _WEAK_SECTOR * SECTOR


def _sick(chip):
    chip.is_sick = True


_CHIPS = {
    "deaf-mark-valid": lambda chip: _deaf(chip, "mark_valid"),
    "deaf-set-boot": lambda chip: _deaf(chip, "set_boot"),
    "weak-page": _weak,
    "sick": _sick,
}


# ---------------------------------------------------------------- lines


def _words(line):
    # -> name of the update, [(kind, value, keep, seed)]. Raises BadLine.
    name, *rest = line.split(" ")
    found = []
    for word in rest:
        head, *more = word.split(":")
        kind, _, value = head.partition("=")
        numbers = {"keep": _WHOLE, "seed": 0}
        for part in more:
            key, _, number = part.partition("=")
            numbers[key] = int(number)
        if kind == "chip" and value in _CHIPS:
            found.append((kind, value, _WHOLE, 0))
        elif kind in ("cut", "rot"):
            found.append((kind, int(value), numbers["keep"], numbers["seed"]))
        else:
            raise BadLine(f"{word} is nothing that happens to this chip")
    return name, found


class Update:
    # One golden update: the flash it begins with, and its steps.
    def __init__(self, job, base, offered, releases, rollback):
        self._job = job
        self._rollback = rollback
        self.offered = offered
        self.releases = releases
        self.is_first = offered.name == "old"  # there was no record before
        self.flash = image_chip.Flash(base)
        self.flash.log = []
        follow(self.chip(), self.case(()))
        self.steps = self.flash.log
        self._last = None  # (words, pages they leave, steps of the recovery) of the line played last

    def chip(self):
        return image_chip.Chip(self._job, self.flash, self._rollback)

    def case(self, words):
        rots = [bit // 8 for kind, bit, _, _ in words if kind == "rot"]
        weak = ("chip", "weak-page", _WHOLE, 0) in words
        excuses = None
        if not self.offered.is_bad and not any(word[0] != "cut" for word in words):
            excuses = _EXCUSES + ((states.RECORD_LOST,) if self.is_first else ())
        return Case(self.offered, self.releases, any(at >= APPS_AT for at in rots), weak, excuses)

    def prepare(self, words):
        # Make the flash that a line describes. Raises BadLine.
        if self._last is not None and words[:-1] == self._last[0] and words[-1][0] == "cut":
            _, pages, steps = self._last
            self.flash.load(pages)
            self._cut(steps, words[-1])
            return
        self.flash.load({})
        steps = self.steps
        cuts = 0
        for n, word in enumerate(words):
            if word[0] == "rot":
                if not 0 <= word[1] < 8 * len(self.flash.data):
                    raise BadLine(f"there are {8 * len(self.flash.data)} bits")
                self.flash.flip(word[1])
            elif word[0] == "cut":
                if cuts:
                    steps = self._recovery(words[:n])
                self._cut(steps, word)
                cuts += 1

    def _cut(self, steps, word):
        _, number, keep, seed = word
        is_torn = keep != _WHOLE or seed != 0
        if not 0 <= number <= len(steps) - is_torn:
            raise BadLine(f"cut={number} lies behind the {len(steps)} steps there are")
        self.flash.apply(steps[:number])
        if is_torn:
            self.flash.tear(steps[number], max(0, keep), seed)

    def _recovery(self, words):
        # -> the steps of an undisturbed recovery from the flash as it is, which stays as it is.
        pages = self.flash.pages()
        self.play(words)
        steps = self.flash.log
        self.flash.load(pages)
        return steps

    def play(self, words):
        # Start what was prepared and follow it -> number of starts. Raises Broken.
        self.flash.log = []
        chip = self.chip()
        check_record(chip)
        for kind, value, _, _ in words:
            if kind == "chip":
                _CHIPS[value](chip)
        return follow(chip, self.case(words))

    def remember(self, words, pages):
        self._last = (words, pages, self.flash.log)


def verdict(update, words):
    # Make a state and play it -> its name, what failed, and the number of starts. Raises BadLine.
    named, starts, failed = "", 0, []
    try:
        update.prepare(words)
        named = update.flash.name()
        pages = update.flash.pages()
        starts = update.play(words)
        update.remember(words, pages)
    except Broken as broken:
        failed.append([broken.oracle, broken.text])
    except BadLine:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a terminal dies of, it is a verdict
        failed.append(["stopped", repr(error)])
    return {"hash": named, "starts": starts, "failed": failed}


# ---------------------------------------------------------------- requests


class Campaign:
    def __init__(self, job):
        releases = [image_chip.Release(name, job[name]) for name in ("cable", "old", "new", "bad")]
        self.updates = {}
        for rollback in (True, False):
            self._add(job, releases, rollback)

    def _add(self, job, releases, rollback):
        cable, old, new, bad = releases
        chip = image_chip.Chip(job, image_chip.blank(job), rollback)
        chip.make_volume()
        chip.flash_by_cable(cable)
        fresh = bytes(chip.nor.data)
        follow(chip, Case(old, releases))
        base = bytes(chip.nor.data)
        for name, start, offered in (("new", base, new), ("first", fresh, old), ("bad", base, bad)):
            name += "" if rollback else _NO_ROLLBACK
            if name in job["updates"]:
                self.updates[name] = Update(job, start, offered, releases, rollback)

    def answer(self, request):
        if request["do"] == "goldens":
            return {
                name: [[offset, len(new)] for offset, new in update.steps]
                for name, update in self.updates.items()
            }
        name, words = _words(request["line"])
        if name not in self.updates:
            raise BadLine("there is no update " + name + ": " + ", ".join(sorted(self.updates)))
        update = self.updates[name]
        if request["do"] == "export":
            update.prepare(words)
            with open(request["file"], "wb") as file:
                file.write(update.flash.data)
            return {"hash": update.flash.name(), "bytes": len(update.flash.data)}
        answer = verdict(update, words)
        if request.get("sizes"):
            answer["sizes"] = [len(new) for _, new in update.flash.log]
        return answer


def main():
    with open(sys.argv[2]) as file:
        job = json.load(file)
    campaign = Campaign(job)
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        try:
            answer = campaign.answer(json.loads(line))
        except (BadLine, ValueError) as error:
            answer = {"refused": str(error)}
        print("@answer " + json.dumps(answer))


main()
