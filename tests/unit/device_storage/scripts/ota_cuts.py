# Runs on MicroPython: a whole update, from the offer to the confirmation, on real littlefs2 over the NOR
# model; the power fails at every n-th flash step, and again somewhere in the recovery.
# Arguments: firmware directory, folder with old.offer, old.bin, new.offer, new.bin, stride, first step.
#
# Signatures are taken as good here (they have their own tests); hashes, states and files are the real thing.

import asyncio
import hashlib
import sys

sys.path.insert(0, sys.argv[1])

import vfs
from boards.host.nor import Nor, PowerCut
from terminal.ota import install, loader, states
from terminal.ota.agent import OtaAgent
from terminal.ota.record import ControlRecord
from terminal.wire.cbor import Reader, enc_array_head, enc_bstr, enc_uint
from terminal.wire.cose import sign1_parse
from terminal.wire.frames import parse_manifest, parse_offer
from terminal.wire.rsa import run_now

IMAGE = 0x100
RECORD_BYTES = 8192
VFS_BYTES = 60 * 4096
TEARS = ((-1, 0), (9, 0), (130, 0), (0, 77), (255, 0))


class Bundle:
    def __init__(self, name):
        with open(sys.argv[2] + "/" + name + ".offer", "rb") as file:
            self.offer = file.read()
        with open(sys.argv[2] + "/" + name + ".bin", "rb") as file:
            self.data = file.read()
        frame = parse_offer(self.offer).manifest
        self.digest = hashlib.sha256(frame).digest()
        self.manifest = parse_manifest(sign1_parse(frame)[1])

    def answers(self, request):
        reader = Reader(request)
        reader.array(4)
        ref = bytes(reader.bstr(8))
        what, first, count = reader.uint(), reader.uint(), reader.uint()
        size = self.manifest.chunk_size
        pieces = [self.data[at : at + size] for at in range(0, len(self.data), size)]
        if what == 0:
            return [chunk(ref, 0, 0, b"".join([hashlib.sha256(piece).digest() for piece in pieces]))]
        return [chunk(ref, 1, n, pieces[n]) for n in range(first, min(first + count, len(pieces)))]


def chunk(ref, what, index, data):
    return enc_array_head(4) + enc_bstr(ref) + enc_uint(what) + enc_uint(index) + enc_bstr(data)


class Board:
    hardware = "qemu-rv32"
    root = "/t"
    image_version = IMAGE
    image_digest = None
    on_trial = False

    def __init__(self, nor):
        self.nor = nor
        self.cause = 1
        vfs.mount(
            vfs.VfsLfs2(nor.region(RECORD_BYTES, VFS_BYTES), readsize=32, progsize=32, lookahead=32), "/t"
        )

    def region(self, name):
        return self.nor.region(0, RECORD_BYTES)

    def reset_cause(self):
        return self.cause

    def stats(self):
        return {}

    def instret(self):
        return 0


class Trusting(OtaAgent):
    async def _open_manifest(self, offer):
        return parse_manifest(sign1_parse(offer.manifest)[1])


class Rebooted(BaseException):
    pass


def life(nor, bundle):
    # One boot: what the loader chose runs, takes the bundle if it does not run it yet, confirms it if it is
    # on trial.
    # -> (slot, True if the bundle is confirmed and running)
    board = Board(nor)
    try:
        slot, state = loader.choose(board, IMAGE, None)
        if slot != states.FACTORY:
            on_trial = state.state == states.TRIAL
            digest = state.other_hash if on_trial else state.hash
            assert run_now(install.check_slot_steps(board.root, slot, digest, IMAGE, None)), (
                "a mixed slot was chosen"
            )
        version = state.other_version if state.state == states.TRIAL else state.version
        if state.state == states.CONFIRMED and state.hash == bundle.digest:
            return slot, True
        asyncio.new_event_loop()  # forget the tasks of the life before
        asyncio.run(session(board, bundle, states.SLOT_NAMES[slot], version))
        return slot, False
    except Rebooted:
        return slot, False
    finally:
        vfs.umount("/t")


async def session(board, bundle, slot, version):
    waiting = []
    done = asyncio.Event()

    def send(kind, payload):
        if kind == "get":
            waiting.extend(bundle.answers(payload))
            done.set()
        return True

    def reboot():
        raise Rebooted()

    agent = Trusting(board, None, "demo", slot, version, send, lambda event: None, reboot)
    if agent.confirm():
        return
    agent.on_offer(bundle.offer)
    task = asyncio.create_task(agent.run())
    while True:
        await done.wait()
        done.clear()
        while waiting:
            agent.on_chunk(waiting.pop(0))
            await asyncio.sleep(0)
        if task.done():
            return


def update(nor, bundle, lives):
    # Boot until the bundle is confirmed -> boots it took.
    for n in range(lives):
        if life(nor, bundle)[1]:
            return n
    raise AssertionError("the update does not converge")


def state_of(nor):
    return ControlRecord(nor.region(0, RECORD_BYTES)).state


old = Bundle("old")
new = Bundle("new")
base = Nor(RECORD_BYTES + VFS_BYTES)
vfs.VfsLfs2.mkfs(base.region(RECORD_BYTES, VFS_BYTES), readsize=32, progsize=32, lookahead=32)
update(base, old, 5)
base_image = bytes(base.data)
golden = Nor(RECORD_BYTES + VFS_BYTES, base_image)
update(golden, new, 5)
erases = golden.erases

cuts = 0
seen = {}
for step in range(int(sys.argv[4]), golden.steps + 1, int(sys.argv[3])):
    keep, seed = TEARS[cuts % len(TEARS)]
    nor = Nor(RECORD_BYTES + VFS_BYTES, base_image)
    floor = state_of(nor).floor
    for again in (step, 1 + step * 7 % 90):
        nor.cut_at(again, keep, seed)
        try:
            update(nor, new, 6)
        except PowerCut:
            cuts += 1
        state = state_of(nor)
        assert state.floor >= floor, "the floor fell"
        floor = state.floor
        assert state.hash in (old.digest, new.digest), "the confirmed bundle was forgotten"
        seen[states.NAMES[state.state]] = seen.get(states.NAMES[state.state], 0) + 1
        nor = Nor(RECORD_BYTES + VFS_BYTES, nor.data)
    update(nor, new, 6)
    assert state_of(nor).hash == new.digest
    assert nor.violations == 0
print("ok", cuts, "cuts of", golden.steps, "steps,", erases, "erases an update,", sorted(seen.items()))
