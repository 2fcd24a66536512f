# Runs on MicroPython: firmware updates of a modelled chip, interrupted at every flash step.
# Arguments: the firmware's folder and a JSON file, the job (bench/campaign/images.py writes it). Prints one
# line of JSON.
#
# Real: record, states, agent, staging, littlefs2, start-up decision. Modelled: NOR flash, bootloader and
# esp_ota_ops (partitions.py). Signatures are taken as good here, they have their own tests.
#
# A golden update is run once with every flash step on record. From that, each state that a power cut can
# leave is made, started, and followed until the terminal is content:
#   boots       the bootloader finds an image it starts, always
#   truth       what the terminal tells is what runs: release and partition
#   confirmed   an image that is on record as confirmed is one that the bootloader keeps starting
#   floor       the version floor does not fall
#   converges   after a bounded number of starts the new image is confirmed; a bad one is rolled back,
#               reported and not taken again
#   flash       no program step asks for a bit to be set; the image that runs is never written to

import asyncio
import hashlib
import json
import sys
import time

sys.path.insert(0, sys.argv[1])
sys.path.insert(1, sys.argv[1] + "/boards/process")

import vfs
from boards.host.nor import Nor, PowerCut
from partitions import UNDEFINED, VALID, Machine, NotBootable, partition_class
from terminal.ota import image_boot, states
from terminal.ota.image_agent import ImageAgent
from terminal.ota.record import ControlRecord
from terminal.wire.cbor import Reader, enc_array_head, enc_bstr, enc_uint
from terminal.wire.cose import sign1_parse
from terminal.wire.errors import WireError
from terminal.wire.frames import parse_manifest, parse_offer

with open(sys.argv[2]) as file:
    job = json.load(file)

POWER_ON, RESET, WATCHDOG = 1, 2, 3
SECTOR = 4096
_REGIONS = {"control": 0x0000, "image": 0x2000}
_OTADATA_AT, _VFS_AT, _APPS_AT = 0x4000, 0x6000, 0x20000
_VFS_BYTES = _APPS_AT - _VFS_AT
_LITTLEFS = {"readsize": 32, "progsize": 32, "lookahead": 32}
_MAX_LIVES = 16
_CONTENT, _RESTART, _CRASH = 0, 1, 2


class Broken(Exception):
    # An oracle's verdict.
    def __init__(self, oracle, text):
        super().__init__(oracle + ": " + text)


class Rebooted(BaseException):
    pass


class Release:
    def __init__(self, name):
        with open(job[name] + ".offer", "rb") as file:
            self.offer = file.read()
        with open(job[name] + ".bin", "rb") as file:
            self.data = file.read()
        frame = parse_offer(self.offer).manifest
        self.digest = hashlib.sha256(frame).digest()
        self.manifest = parse_manifest(sign1_parse(frame)[1])
        self.version = self.manifest.version
        self.is_bad = name == "bad"
        pieces = [self.data[at : at + SECTOR] for at in range(0, len(self.data), SECTOR)]
        self._pieces = pieces
        self._hashes = b"".join([hashlib.sha256(piece).digest() for piece in pieces])

    def answers(self, request):
        reader = Reader(request)
        reader.array(4)
        ref = bytes(reader.bstr(8))
        what, first, count = reader.uint(), reader.uint(), reader.uint()
        if what == 0:
            return [_chunk(ref, 0, first, self._hashes[first * 1024 : first * 1024 + 1024])]
        last = min(first + count, len(self._pieces))
        return [_chunk(ref, 1, n, self._pieces[n]) for n in range(first, last)]


def _chunk(ref, what, index, data):
    return enc_array_head(4) + enc_bstr(ref) + enc_uint(what) + enc_uint(index) + enc_bstr(data)


class Flash(Nor):
    # log: steps as (offset, bytes afterwards) while it is a list.
    log = None

    def _step(self, offset, new):
        if self.log is not None:
            self.log.append((offset, bytes(new)))
        super()._step(offset, new)


class Idle:
    # Stands where the agent waits for something new to do: tells that it does.
    def __init__(self, told):
        self._told = told
        self.reached = False

    def set(self):
        pass

    def clear(self):
        pass

    async def wait(self):
        self.reached = True
        self._told.set()
        await asyncio.Event().wait()


class Trusting(ImageAgent):
    async def _open_manifest(self, offer):
        return parse_manifest(sign1_parse(offer.manifest)[1])


class Chip:
    # A terminal with two images; what `board` is to the firmware.
    hardware = "process"
    root = "/t"
    image_version = 0
    is_sick = False  # the bad image gets as far as the application

    def __init__(self, image=None):
        size = job["apps_bytes"]
        self.nor = Flash(_APPS_AT + 2 * size, image)
        apps = []
        for at in (_APPS_AT, _APPS_AT + size):
            apps.append((self.nor.region(at, size), at, size))
        otadata = self.nor.region(_OTADATA_AT, 2 * SECTOR)
        self.machine = Machine(otadata, apps, job["chip_id"], job.get("rollback", True))
        self.cause = POWER_ON
        self.told = []

    def region(self, name):
        return self.nor.region(_REGIONS[name], 2 * SECTOR)

    def images(self):
        return partition_class(self.machine)

    def reset_cause(self):
        return self.cause

    def stats(self):
        return {}

    def instret(self):
        return 0

    def record(self):
        return ControlRecord(self.region("image")).state

    def volume(self):
        return self.nor.region(_VFS_AT, _VFS_BYTES)

    def holds(self, number, data):
        # -> whether a partition begins with these bytes.
        at = self.machine.apps[number][1]
        return memoryview(self.nor.data)[at : at + len(data)] == data

    def flash_by_cable(self, release):
        at = _APPS_AT
        self.nor.data[at : at + len(release.data)] = release.data


# ---------------------------------------------------------------- lives


def release_of(chip, number, releases):
    # -> the Release that a partition holds.
    for release in releases:
        if chip.holds(number, release.data):
            return release
    raise Broken("boots", "what runs is none of the images")


def life(chip, offered, releases):
    # One start -> how it ended.
    machine = chip.machine
    try:
        machine.boot()
    except NotBootable:
        raise Broken("boots", "the bootloader finds no image") from None
    vfs.mount(vfs.VfsLfs2(chip.volume(), **_LITTLEFS), "/t")
    try:
        running = release_of(chip, machine.running, releases)
        # An image that does not start needs a bootloader with rollback; where there is none, the bad one
        # starts and dies before it is confirmed.
        if running.is_bad and machine.rollback and not chip.is_sick:
            return _CRASH
        if not image_boot.main(chip):
            return _RESTART
        if running.is_bad:
            return _CRASH
        asyncio.new_event_loop()  # forget the tasks of the life before
        asyncio.run(session(chip, offered, running))
        return _CONTENT
    except Rebooted:
        return _RESTART
    finally:
        vfs.umount("/t")


async def session(chip, offered, running):
    waiting = []
    asked = asyncio.Event()

    def send(kind, payload):
        if kind == "get":
            waiting.append(payload)
            asked.set()
        else:
            hear(chip, payload, running)
        return True

    def reboot():
        raise Rebooted()

    agent = Trusting(chip, None, "demo", "factory", 0, send, lambda event: None, reboot)
    agent.confirm()
    idle = agent._wake = Idle(asked)
    agent.on_offer(offered.offer)
    failure = []

    async def watched():
        try:
            await agent.run()
        except Exception as error:  # noqa: BLE001 - raised again below
            failure.append(error)
            asked.set()

    task = asyncio.create_task(watched())
    while not idle.reached:
        await asked.wait()
        asked.clear()
        if failure:
            raise failure[0]
        while waiting:
            for frame in offered.answers(waiting.pop(0)):
                agent.on_chunk(frame)
                await asyncio.sleep(0)
    task.cancel()


def hear(chip, payload, running):
    # What the terminal tells must be what runs.
    reader = Reader(payload)
    reader.array(5)
    told = [reader.uint() for _ in range(5)]
    chip.told.append(told)
    if told[1] != 3 + chip.machine.running:
        raise Broken("truth", f"tells of slot {told[1]}, ota_{chip.machine.running} runs")
    if told[0] not in (running.version, 0 if running.by_cable else running.version):
        raise Broken("truth", f"tells of release {told[0]}, {running.version} runs")


def is_done(chip, offered):
    # Whether an update reached its end.
    state = chip.record()
    if offered.is_bad:
        return state.state == states.CONFIRMED and state.is_quarantined(offered.digest)
    return state.state == states.CONFIRMED and state.hash == offered.digest


def follow(chip, offered, releases, cause=POWER_ON):
    # Start after start until the update is over -> number of starts.
    floor = chip.record().floor
    for n in range(_MAX_LIVES):
        chip.cause = cause
        end = life(chip, offered, releases)
        check_record(chip)
        if chip.record().floor < floor:
            raise Broken("floor", "it fell")
        if end == _CONTENT and is_done(chip, offered):
            check_end(chip, offered, releases)
            return n + 1
        cause = (POWER_ON, RESET, WATCHDOG)[end]  # a content one is unplugged, and offered the same again
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


def check_end(chip, offered, releases):
    running = release_of(chip, chip.machine.running, releases)
    if offered.is_bad:
        reasons = [told[4] for told in chip.told]
        wanted = states.FELL_BACK if chip.machine.rollback else states.TRIES_SPENT
        if running is offered or wanted not in reasons:
            raise Broken("truth", "the fallback was not reported")
    elif running is not offered:
        raise Broken("confirmed", "another image runs than the confirmed one")


# ---------------------------------------------------------------- states


def golden_run(base, offered, releases):
    # -> the steps of an undisturbed update.
    chip = Chip(base)
    chip.nor.log = []
    follow(chip, offered, releases)
    return chip.nor.log


def torn(flash, step, number, turn):
    # Interrupt a step in a flash image; turn chooses how.
    offset, new = step
    nor = Nor(SECTOR)
    nor.data = flash
    keeps = (1, len(new) // 2, len(new) - 1, 0, 24)
    nor._cut_keep = keeps[turn % len(keeps)]
    nor._cut_seed = 77 + number if turn % len(keeps) == 3 else 0
    nor._tear(offset, new)


class Campaign:
    def __init__(self, base, offered, releases):
        self._base = base
        self._offered = offered
        self._releases = releases
        self.steps = golden_run(base, offered, releases)
        self.counts = {"states": 0, "cuts": 0, "torn": 0, "second_cuts": 0, "starts": 0}
        self.failed = []

    def play(self, flash, line, second):
        # Start a flash image and follow it; then again with second cuts into the recovery.
        self.counts["states"] += 1
        chip = Chip(flash)
        try:
            self.counts["starts"] += follow(chip, self._offered, self._releases)
            for at in range(1, second + 1):
                self._second(flash, 1 + at * chip.nor.steps // (second + 1))
        except Broken as broken:
            self.failed.append([line, str(broken)])
        except (OSError, WireError, ValueError) as error:
            self.failed.append([line, "stopped: " + repr(error)])

    def _second(self, flash, step):
        chip = Chip(flash)
        chip.nor.cut_at(step, 9 if step % 2 else -1)
        try:
            follow(chip, self._offered, self._releases)
        except PowerCut:
            self.counts["second_cuts"] += 1
            self.counts["states"] += 1
            check_record(Chip(chip.nor.data))
            follow(Chip(chip.nor.data), self._offered, self._releases)

    def run(self, name, plan, deadline):
        # Every stride-th step from `first` on, and every step on records and otadata: a cut before it, and
        # inside it -> whether all were played.
        flash = bytearray(self._base)
        stride = plan["stride"]
        for number, (offset, new) in enumerate(self.steps):
            if number % stride == plan["first"] or (offset < _VFS_AT and plan["first"] == 0):
                if deadline and time.time() > deadline:
                    return False
                turn = self.counts["cuts"]
                self.counts["cuts"] += 1
                self.play(flash, f"{name} cut={number}", plan["second"] if turn % 8 == 0 else 0)
                broken = bytearray(flash)
                torn(broken, (offset, new), number, turn)
                self.counts["torn"] += 1
                self.play(broken, f"{name} cut={number}:torn={turn % 5}", 0)
            flash[offset : offset + len(new)] = new
            if len(self.failed) >= plan["stop_at"]:
                return False
        return True


# ---------------------------------------------------------------- chips that do not do as they are told


def deaf_chip(base, name):
    # A chip on which one call of esp_ota_ops does nothing, once, and does not say so.
    chip = Chip(base)
    honest = getattr(chip.machine, name)

    def nothing(*arguments):
        setattr(chip.machine, name, honest)

    setattr(chip.machine, name, nothing)
    return chip


def special_cases(base, offered, bad, releases):
    # -> {name: what failed} of what no power cut shows.
    failed = {}
    for name in ("mark_valid", "set_boot"):
        try:
            follow(deaf_chip(base, name), offered, releases)
        except Broken as broken:
            failed[name + " does nothing"] = str(broken)
    try:
        chip = Chip(base)
        follow(chip, bad, releases)
        before = len(chip.told)
        chip.cause = POWER_ON
        life(chip, bad, releases)
        if states.QUARANTINED not in [told[4] for told in chip.told[before:]]:
            raise Broken("converges", "the image that failed is taken again")
    except Broken as broken:
        failed["an image that does not start"] = str(broken)
    try:
        chip = Chip(base)
        chip.is_sick = True
        follow(chip, bad, releases)
    except Broken as broken:
        failed["an image that starts and does not confirm"] = str(broken)
    try:
        chip = weak_chip(base)
        follow(chip, offered, releases)
        if states.BAD_BYTES not in [told[4] for told in chip.told]:
            raise Broken("truth", "an image that reads back otherwise was not noticed")
    except Broken as broken:
        failed["a page that does not take"] = str(broken)
    return failed


def weak_chip(base):
    # A chip on which one page of the image's third sector does not take what is programmed, once.
    chip = Chip(base)
    nor = chip.nor
    honest = nor.program
    target = chip.machine.apps[1 - chip.record().slot][1] + 2 * SECTOR

    def program(offset, buf):
        if offset == target:
            nor.program = honest
            buf = b"\xff" * 256 + bytes(buf[256:])
        honest(offset, buf)

    nor.program = program
    return chip


def main():
    cable, old, new, bad = [Release(name) for name in ("cable", "old", "new", "bad")]
    for release in (cable, old, new, bad):
        release.by_cable = release is cable
    releases = (cable, old, new, bad)
    chip = Chip()
    vfs.VfsLfs2.mkfs(chip.volume(), **_LITTLEFS)
    chip.flash_by_cable(cable)
    fresh = bytes(chip.nor.data)
    follow(chip, old, releases)
    base = bytes(chip.nor.data)
    deadline = time.time() + job["budget_s"] if job.get("budget_s") else None
    plan = job["plan"]
    result = {"failed": [], "complete": True, "golden": {}}
    for name, start, offered in (("new", base, new), ("first", fresh, old), ("bad", base, bad)):
        if name not in job["updates"]:
            continue
        campaign = Campaign(start, offered, releases)
        result["golden"][name] = len(campaign.steps)
        result["complete"] = campaign.run(name, plan, deadline) and result["complete"]
        result["failed"] += campaign.failed
        for key, count in campaign.counts.items():
            result[key] = result.get(key, 0) + count
    if job.get("special", True):
        for name, text in special_cases(base, new, bad, releases).items():
            result["failed"].append([name, text])
    print(json.dumps(result))


main()
