# Runs on MicroPython: a modelled chip with two firmware images, and one start of it. See image_cuts.py.
#
# Real: record, states, agent, staging, littlefs2, start-up decision. Modelled: NOR flash, bootloader and
# esp_ota_ops (partitions.py). Signatures are taken as good here, they have their own tests.
#
# Its flash is that of the process board with the boot option "partitions": the flash map, and behind it
# otadata, ota_0 and ota_1, so that board starts what this chip leaves behind.

import asyncio
import hashlib

import vfs
from boards.host.nor import PAGE_BYTES, Nor
from partitions import Machine, NotBootable, partition_class
from terminal import regions
from terminal.ota import image_boot, states
from terminal.ota.image_agent import ImageAgent
from terminal.ota.record import ControlRecord
from terminal.wire.cbor import Reader, enc_array_head, enc_bstr, enc_uint
from terminal.wire.cose import sign1_parse
from terminal.wire.frames import parse_manifest, parse_offer

POWER_ON, RESET, WATCHDOG = 1, 2, 3
SECTOR = 4096
OTADATA_AT = regions.FLASH_BYTES
APPS_AT = OTADATA_AT + 0x10000
_LITTLEFS = {"readsize": 32, "progsize": 32, "lookahead": 32}
_HASHES_BYTES = 1024  # of the chunk hash list, in one answer
CONTENT, RESTART, CRASH = 0, 1, 2  # how a life ended


class Broken(Exception):
    # An oracle's verdict.
    def __init__(self, oracle, text):
        super().__init__(oracle, text)
        self.oracle = oracle
        self.text = text


class Rebooted(BaseException):
    pass


class Release:
    def __init__(self, name, place):
        self.name = name
        with open(place + ".offer", "rb") as file:
            self.offer = file.read()
        with open(place + ".bin", "rb") as file:
            self.data = file.read()
        frame = parse_offer(self.offer).manifest
        self.digest = hashlib.sha256(frame).digest()
        self.manifest = parse_manifest(sign1_parse(frame)[1])
        self.version = self.manifest.version
        self.is_bad = name == "bad"
        self.by_cable = name == "cable"
        pieces = [self.data[at : at + SECTOR] for at in range(0, len(self.data), SECTOR)]
        self._pieces = pieces
        self._hashes = b"".join([hashlib.sha256(piece).digest() for piece in pieces])

    def answers(self, request):
        reader = Reader(request)
        reader.array(4)
        ref = bytes(reader.bstr(8))
        what, first, count = reader.uint(), reader.uint(), reader.uint()
        if what == 0:
            at = first * _HASHES_BYTES
            return [_chunk(ref, 0, first, self._hashes[at : at + _HASHES_BYTES])]
        last = min(first + count, len(self._pieces))
        return [_chunk(ref, 1, n, self._pieces[n]) for n in range(first, last)]


def _chunk(ref, what, index, data):
    return enc_array_head(4) + enc_bstr(ref) + enc_uint(what) + enc_uint(index) + enc_bstr(data)


class Flash(Nor):
    # Knows which pages differ from a base: a state is made, named and taken back at the cost of those.
    # log: steps as (offset, bytes afterwards) while it is a list.
    # weak_at: place of a page that does not take what is programmed next, once.
    log = None
    weak_at = None

    def __init__(self, base):
        super().__init__(len(base), base)
        self._base = base
        self._changed = set()

    def program(self, offset, buf):
        if offset == self.weak_at:
            self.weak_at = None
            buf = b"\xff" * PAGE_BYTES + bytes(buf[PAGE_BYTES:])
        super().program(offset, buf)

    def _step(self, offset, new):
        if self.log is not None:
            self.log.append((offset, bytes(new)))
        self._changed.add(offset // PAGE_BYTES)
        super()._step(offset, new)

    def pages(self):
        # -> {page number: bytes} of what may differ from the base.
        return {page: self._page(page) for page in self._changed}

    def load(self, pages):
        # Be the base with these pages again, untouched so far.
        for page in self._changed:
            at = page * PAGE_BYTES
            self.data[at : at + PAGE_BYTES] = self._base[at : at + PAGE_BYTES]
        for page, content in pages.items():
            self.data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = content
        self._changed = set(pages)
        self.log = self.weak_at = None
        self.violations = 0

    def apply(self, steps):
        for offset, new in steps:
            self._changed.add(offset // PAGE_BYTES)
            self.data[offset : offset + len(new)] = new

    def tear(self, step, keep, seed):
        # Interrupt a step: its first `keep` bytes happen, and with a seed some later bits.
        offset, new = step
        self._changed.add(offset // PAGE_BYTES)
        self._cut_keep, self._cut_seed = keep, seed
        self._tear(offset, new)

    def flip(self, bit):
        self._changed.add(bit // 8 // PAGE_BYTES)
        self.data[bit // 8] ^= 1 << bit % 8

    def name(self):
        # -> 32 hex digits: the same for the same contents, however they came about.
        found = hashlib.sha256()
        for page in sorted(self._changed):
            at = page * PAGE_BYTES
            content = self._page(page)
            if content != self._base[at : at + PAGE_BYTES]:
                found.update(at.to_bytes(4, "big"))
                found.update(content)
        return found.digest()[:16].hex()

    def _page(self, page):
        return bytes(self.data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])


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
    # A terminal with two images; what `board` is to the firmware. flash: a Flash, or a Nor that becomes one's
    # base. job: see image_cuts.py.
    hardware = "process"
    root = "/t"
    image_version = 0
    image_digest = None
    is_sick = False  # the bad image gets as far as the application

    def __init__(self, job, flash, rollback):
        size = job["apps_bytes"]
        self.nor = flash
        apps = []
        for at in (APPS_AT, APPS_AT + size):
            apps.append((self.nor.region(at, size), at, size))
        otadata = self.nor.region(OTADATA_AT, 2 * SECTOR)
        self.machine = Machine(otadata, apps, job["chip_id"], rollback)
        self.cause = POWER_ON
        self.told = []

    def region(self, name):
        return self.nor.region(*regions.find(name))

    def images(self):
        return partition_class(self.machine)

    def reset_cause(self):
        return self.cause

    def stats(self):
        return {}

    def instret(self):
        return 0

    def record(self):
        return ControlRecord(self.region(regions.IMAGE)).state

    def holds(self, number, data):
        # -> whether a partition begins with these bytes.
        at = self.machine.apps[number][1]
        return memoryview(self.nor.data)[at : at + len(data)] == data

    def flash_by_cable(self, release):
        self.nor.data[APPS_AT : APPS_AT + len(release.data)] = release.data

    def make_volume(self):
        vfs.VfsLfs2.mkfs(self.region(regions.VFS), **_LITTLEFS)

    def mount(self):
        # Without times of change: a line shall mean the same flash for ever.
        vfs.mount(vfs.VfsLfs2(self.region(regions.VFS), mtime=False, **_LITTLEFS), "/t")


def blank(job):
    # -> the flash of a chip nobody has written to.
    return Nor(APPS_AT + 2 * job["apps_bytes"])


# ---------------------------------------------------------------- one life


def release_of(chip, number, releases):
    # -> the Release that a partition holds.
    for release in releases:
        if chip.holds(number, release.data):
            return release
    raise Broken("boots", "what runs is none of the images")


def life(chip, offered, releases):
    # One start with a release on offer -> how it ended. Raises Broken.
    machine = chip.machine
    try:
        machine.boot()
    except NotBootable:
        raise Broken("boots", "the bootloader finds no image") from None
    chip.mount()
    try:
        running = release_of(chip, machine.running, releases)
        # An image that does not start needs a bootloader with rollback; where there is none, the bad one
        # starts and dies before it is confirmed.
        if running.is_bad and machine.rollback and not chip.is_sick:
            return CRASH
        if not image_boot.main(chip):
            return RESTART
        if running.is_bad:
            return CRASH
        asyncio.new_event_loop()  # forget the tasks of the life before
        asyncio.run(session(chip, offered, running))
        return CONTENT
    except Rebooted:
        return RESTART
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
    reader.array((5, 6))
    told = [reader.uint() for _ in range(5)]
    chip.told.append(told)
    print(
        "[told] release",
        told[0],
        "in ota_" + str(told[1] - 3),
        states.NAMES[told[2]],
        states.REASONS[told[4]],
    )
    if told[1] != 3 + chip.machine.running:
        raise Broken("truth", f"tells of slot {told[1]}, ota_{chip.machine.running} runs")
    if told[0] not in (running.version, 0 if running.by_cable else running.version):
        raise Broken("truth", f"tells of release {told[0]}, {running.version} runs")
