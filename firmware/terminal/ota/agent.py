# Takes an update from the offer to the reboot, and confirms it afterwards; one task, resumable at every
# point.
#
# Nothing that arrives is believed before it was checked: the release key's certificate by the root key, the
# manifest by the release key, the chunk hash list and the chunks by the manifest, and at the end the
# installed bytes by reading them back. Every state is stored before the step it stands for.

import asyncio
import gc
import hashlib
from binascii import hexlify

from ..compat import const, ticks_diff, ticks_ms
from ..regions import CONTROL
from ..wire.cose import aad, sign1_parse, sign1_verify_steps
from ..wire.errors import WireError
from ..wire.frames import (
    encode_ota_get,
    encode_ota_state,
    parse_manifest,
    parse_offer,
    parse_ota_chunk,
)
from ..wire.keys import RELEASE, certificate_steps
from ..wire.rsa import run as run_steps
from . import install, states
from .pace import WINDOW_BYTES, Pace
from .record import ControlRecord
from .states import NAMES, NO_HASH, SLOT_NAMES, OtaError, in_words

_ROTATIONS = const(2)  # kept at once; the server sends the others when it is asked again
_STALL_S = const(4)
_MAX_STALLS = const(8)  # without any progress; then the download waits for the next link or offer
_MAX_BAD = const(16)  # wrong chunks in one download; then it is given up
_REF_BYTES = const(8)


class OtaAgent:
    # board: .root, .hardware, .region(), .image_version, .image_digest, .stats(), .instret(). root_key: the
    # PublicKey that vouches for release keys. site: this restaurant; slot: name of the running slot; version:
    # the running application's.
    # send(kind, payload) -> bool: publish below o/<site>/<device>/ota/; False when that is not possible
    # now. report(dict): for the console. reboot(): restart the board; the order journal must be safe by
    # then.

    def __init__(self, board, root_key, site, slot, version, send, report, reboot):
        self.record = ControlRecord(board.region(CONTROL))
        self.bad = 0  # frames that were refused
        # Set by whoever made this agent. authority: authority.Authority, None where there is no session to
        # ask in, so that every signed offer counts as fresh. questions(): what to ask it. pace.traffic.
        self.authority = None
        self.questions = None
        self.pace = Pace()
        self._rotations = []
        self._epoch = 0  # of the release key of the offer that is being judged
        self._board = board
        self._root_key = root_key
        self._site = site
        self._slot = SLOT_NAMES.index(slot)
        self._version = version
        self._send = send
        self._report = report
        self._reboot = reboot
        self._offer = None
        self._staging = None
        self._arrived = []  # (ota-chunk's what, view): what was asked for and is not yet stored, in order,
        self._room = None  # and its bytes while there is a download: a memoryview of WINDOW_BYTES
        self._cause = ""
        self._left = NO_HASH  # the bundle that the reason on record is about, once it is no longer under way
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    # -- what arrives

    def on_offer(self, frame):
        # Only the newest offer is kept; a download under way goes on unless this is another bundle.
        self._offer = bytes(frame)
        self._wake.set()
        self._progress.set()

    def on_chunk(self, frame):
        # Keep one ota-chunk for the task, which checks and stores it: flash is slow, and an order that comes
        # meanwhile must not wait for all of it. Anything that is not expected next is ignored.
        staging = self._staging
        if staging is None:
            return
        try:
            chunk = parse_ota_chunk(frame)
        except WireError:
            self.bad += 1
            self._progress.set()  # asked for again at once
            return
        if chunk.ref != self.record.state.other_hash[:_REF_BYTES]:
            return
        arrived = self._arrived
        if self._room is None or not staging.is_next(chunk.what, chunk.index - len(arrived)):
            return
        place_bytes = staging.place_bytes(chunk.what)
        places = WINDOW_BYTES // place_bytes
        size = len(chunk.data)
        if len(arrived) < places and size <= place_bytes:
            place = chunk.index % places * place_bytes
            self._room[place : place + size] = chunk.data
            arrived.append((chunk.what, self._room[place : place + size]))
            self._progress.set()

    def on_rotation(self, frame):
        # A statement that a release key follows another; judged by the task.
        if self.authority is not None and len(self._rotations) < _ROTATIONS:
            self._rotations.append(bytes(frame))
            self._wake.set()

    def link_up(self):
        # The link is there (again): say where the update stands, go on with a download.
        self._wake.set()
        self._progress.set()

    # -- what the application says

    def confirm(self):
        # The application proved itself (self-test passed, journal and menu open, keys readable, server
        # reached)
        # -> True if a bundle on trial became the confirmed one. A bundle that calls itself by another version
        # than its manifest is rolled back instead.
        state = self.record.state
        if state.state != states.TRIAL:
            return False
        if state.other_version != self._version:
            self._store(states.cancelled(state, states.BAD_MANIFEST))
            self._reboot()
            return False
        self._store(states.confirmed(state))
        self._board.on_trial = False
        return True

    def lasted(self):
        # This start has lasted: the self-test passed, if anything is on trial.
        state = self.record.state
        if state.state == states.TRIAL and not self._runs_in(state.target()):
            return
        after = states.lasted(state)
        if after is not state:
            self._store(after)

    # -- what an operator says (may come at any await of the task)

    def cancel(self):
        # Give the update up, on trial or not: it is quarantined, and what was confirmed runs again.
        state = self.record.state
        on_trial = state.state == states.TRIAL
        self._staging = self._offer = None
        if state.state in (states.STAGING, states.VERIFIED, states.ARMED):
            state = states.quarantined(state, state.other_hash)
        self._store(states.cancelled(state))
        self._progress.set()
        self._leave(on_trial)

    def release(self):
        # Let quarantined bundles be tried again.
        self._store(states.released(self.record.state))

    def _leave(self, on_trial):
        # After a cancel: whatever runs and is not the confirmed one ends here.
        if on_trial:
            self._reboot()

    def status(self):
        # -> dict for the console.
        state = self.record.state
        return {
            "state": NAMES[state.state],
            "slot": SLOT_NAMES[self._slot],
            "version": self._version,
            "other_version": state.other_version,
            "floor": state.floor,
            "tries": state.tries,
            "starts": state.starts,
            "offset": self._staging.offset() if self._staging else 0,
            "reason": in_words(state.reason),
            "cause": self._cause,
            "flash": self._board.stats(),
            "instret": self._board.instret(),
        }

    # -- the task

    async def run(self):
        while True:
            self._wake.clear()
            try:
                self._tell()
                self._settle()
                await self._rotate()
                offer = await self._take_offer()
                if offer is not None:
                    await self._begin(*offer)
                state = self.record.state.state
                if self._is_held():
                    pass  # the image on trial comes first; whoever confirms it wakes this task
                elif state == states.STAGING:
                    await self._fetch()
                elif state == states.VERIFIED:
                    await self._install()
            except OtaError as refusal:
                self._refuse(refusal.reason)
            except MemoryError as error:
                self._refuse(states.NO_SPACE, repr(error))
            except OSError as error:
                self._refuse(install.reason_of(error), repr(error))
            if self._offer is None:
                await self._wake.wait()

    def _refuse(self, reason, cause=""):
        # What was under way ends; what runs goes on running. cause: what exactly failed, for the console.
        self._cause = cause
        self._staging = None
        state = self.record.state
        if state.state in (states.STAGING, states.VERIFIED):
            state = states.cancelled(state, reason)
        self._store(state)

    def _store(self, state):
        before = self.record.state
        if state.state == states.CONFIRMED and before.state != states.CONFIRMED:
            self._left = self._subject()
        self.record.store(state)
        self._tell()

    def _subject(self):
        # -> the name, or its beginning, of the bundle that the state on record is about; NO_HASH for none, or
        # where a restart has come between a bundle that was given up and now.
        state = self.record.state
        is_back = state.state == states.ROLLED_BACK and state.other_hash == NO_HASH
        if is_back or (state.state == states.CONFIRMED and state.reason == states.CRASH_LOOP):
            return state.quarantine[0]
        if state.state != states.CONFIRMED:
            return state.other_hash
        return self._left if state.reason else state.hash

    def _tell(self, reason=None, digest=None):
        # digest: of the bundle that the reason is about, if it is not what the record is about.
        # -> whether the server was told.
        state = self.record.state
        if reason is None:
            reason = state.reason
        told = self.status()
        if digest is None:
            digest = self._subject()
        ref = b"" if digest == NO_HASH else digest[:_REF_BYTES]
        told["reason"] = in_words(reason)
        told["bundle"] = hexlify(ref).decode()
        self._report(told)
        return self._send(
            "state", encode_ota_state(self._version, self._slot, state.state, told["offset"], reason, ref)
        )

    def _settle(self):
        # A rollback counts as over once the server was told.
        if self.record.state.state == states.ROLLED_BACK and self._tell():
            self._store(states.settled(self.record.state))

    async def _take_offer(self):
        # -> (manifest-frame, its digest, Manifest) of a waiting offer that may be installed, else None: the
        # server is told why, and a download that is under way goes on.
        frame = self._offer
        self._offer = None
        if frame is None or self.record.state.state in (states.ARMED, states.TRIAL, states.ROLLED_BACK):
            return None  # first things first: the server offers it again
        digest = NO_HASH
        try:
            offer = parse_offer(frame)
            digest = hashlib.sha256(offer.manifest).digest()
            return await self._judge(offer, digest)
        except OtaError as refusal:
            self._tell(refusal.reason, digest)
        except WireError:
            self._tell(states.BAD_SIGNATURE, digest)
        self.bad += 1
        return None

    async def _judge(self, offer, digest):
        # -> as _take_offer. Raises OtaError, WireError.
        state = self.record.state
        self._keep_off(state)
        under_way = state.state != states.CONFIRMED and digest == state.other_hash
        if under_way and (self._staging is not None or self._stored_manifest(state) is not None):
            return None
        manifest = await self._open_manifest(offer)
        states.judge(self.record.state, digest, manifest.version)
        self._check(manifest)
        if self.authority is not None:
            await self._ask(digest)
        return offer.manifest, digest, manifest

    async def _ask(self, digest):
        # Whether the server means this terminal, now. Raises OtaError STALE_OFFER.
        if not await self.authority.is_fresh(digest, self.questions()):
            raise OtaError(states.STALE_OFFER)
        self.authority.accept_key(self._epoch)

    async def _rotate(self):
        while self._rotations:
            try:
                await self.authority.rotate(self._root_key, self._rotations[0])
            except WireError:
                self.bad += 1
            del self._rotations[0]

    async def _begin(self, frame, digest, manifest):
        self._staging = None
        state = states.staging(self.record.state, digest, manifest.version, manifest.floor)
        self._store(state)
        staging = self._new_staging(state.target(), manifest)
        await self.pace.between_orders(staging.begin_steps(frame))
        if self.record.state.state == states.STAGING:  # not cancelled meanwhile
            self._staging = staging

    async def _open_manifest(self, offer):
        certificate = await run_steps(certificate_steps(self._root_key, offer.certificate, RELEASE, ""))
        if self.authority is not None:
            await self._rotate()
            self.authority.check_key(certificate.epoch)
            self._epoch = certificate.epoch
        kid, payload, signature = sign1_parse(offer.manifest)
        if kid != certificate.public.kid:
            raise OtaError(states.BAD_SIGNATURE)
        signed = sign1_verify_steps(certificate.public, aad("manifest", "", ""), payload, signature)
        if not await run_steps(signed):
            raise OtaError(states.BAD_SIGNATURE)
        return parse_manifest(payload)

    async def _fetch(self):
        # Get what is missing of the bundle, then go on to the installed bytes. Returns early when the link is
        # gone or another bundle was offered; the staging stays as it is.
        state = self.record.state
        if self._staging is None:
            self._staging = await self._resumed(state)
        staging = self._staging
        self.bad = 0
        self.pace.window = 1
        self._arrived.clear()
        gc.collect()
        self._room = memoryview(bytearray(WINDOW_BYTES))
        try:
            if not await self._fetch_all(state, staging):
                return
        finally:
            self._room = None
        await self.pace.between_orders(staging.finish_steps())
        whole = await self._is_whole()
        if self._staging is not staging:
            return  # cancelled meanwhile
        self._store(states.verified(self.record.state) if whole else self._given_up())
        self._staging = None
        if self.record.state.state == states.VERIFIED:
            await self._install()

    async def _fetch_all(self, state, staging):
        # -> whether everything is there.
        ref = state.other_hash[:_REF_BYTES]
        stalls = 0
        while not staging.is_complete():
            if self._offer is not None and self._is_other(state):
                return False
            await self.pace.orders_first()
            if staging.has_hashes():
                request = encode_ota_get(ref, 1, staging.next_chunk, self.pace.window)
                goal = min(staging.next_chunk + self.pace.window, staging.chunks)
            else:
                request = encode_ota_get(ref, 0, staging.next_run, 1)
                goal = 0
            if not self._send("get", request):
                return False
            bad = self.bad
            asked_ms = ticks_ms()
            moved = await self._wait(staging, goal)
            self.pace.fit_window(ticks_diff(ticks_ms(), asked_ms), staging.manifest.chunk_size)
            stalls = 0 if moved or self.bad > bad else stalls + 1
            if self.bad > _MAX_BAD:
                raise OtaError(states.BAD_BYTES)
            if stalls == _MAX_STALLS or self._staging is not staging:
                return False
        return True

    def _is_other(self, state):
        # Whether the waiting offer is for another bundle than the one being fetched; the same one is dropped.
        try:
            digest = hashlib.sha256(parse_offer(self._offer).manifest).digest()
        except WireError:
            digest = None
        if digest is not None and digest != state.other_hash:
            return True
        self._offer = None
        return False

    async def _wait(self, staging, goal):
        # Until the window (or the run of hashes) is stored, or nothing came for a while -> whether anything
        # was.
        first = (staging.next_run, staging.next_chunk)
        while True:
            before = (staging.next_run, staging.next_chunk)
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), _STALL_S)
            except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no other name for it
                return before != first
            await self._put(staging)
            now = (staging.next_run, staging.next_chunk)
            if now == before or staging.is_complete() or (now[1] >= goal if goal else now[0] != first[0]):
                return now != first

    async def _put(self, staging):
        # Check and store what has arrived.
        arrived = self._arrived
        while arrived and self._staging is staging:
            what, data = arrived[0]
            try:
                put = staging.put_chunk_steps if what else staging.put_hashes_steps
                await self.pace.between_orders(put(data))
            except OtaError as refusal:
                if refusal.reason != states.BAD_BYTES:
                    raise
                self.bad += 1
                arrived.clear()  # asked for again at once
                return
            del arrived[0]

    async def _resumed(self, state):
        # A download that a reboot interrupted.
        self._keep_off(state)
        manifest = self._stored_manifest(state)
        if manifest is None:
            raise OtaError(states.NONE)  # cut before the manifest was stored: the server offers it again
        if not self._fits(manifest):  # another image may run by now
            raise OtaError(states.WRONG_IMAGE)
        staging = self._new_staging(state.target(), manifest)
        await self.pace.between_orders(staging.resume_steps())
        return staging

    def _keep_off(self, state):
        # Nothing is ever written into what runs. Raises OtaError NOT_NOW.
        if self._runs_in(state.target()):
            raise OtaError(states.NOT_NOW)

    def _stored_manifest(self, state):
        # -> the Manifest in the target slot if it is that of the bundle under way, else None.
        try:
            return self._load_manifest(state.target(), state.other_hash)
        except OSError:
            return None

    async def _is_whole(self):
        state = self.record.state
        return await self.pace.between_orders(self._whole_steps(state.target(), state.other_hash))

    def _given_up(self):
        return states.cancelled(self.record.state, states.BAD_BYTES)

    async def _install(self):
        # Installed and verified: read it back once more if a reboot came between, arm it, restart.
        whole = await self._is_whole()
        if self.record.state.state != states.VERIFIED:
            return  # cancelled meanwhile
        if not whole:
            self._store(self._given_up())
            return
        self._arm()

    # -- what a layer does in its own way: here the application's bundle in a slot

    def _runs_in(self, slot):
        return slot == self._slot

    def _is_held(self):
        # Whether the other layer's trial has to be over first: one at a time, so that whoever fails is known.
        return getattr(self._board, "image_on_trial", False)

    def _check(self, manifest):
        # Whether a signed manifest may be installed here. Raises OtaError.
        board = self._board
        image = board.image_version, board.image_digest
        install.check_manifest(manifest, board.hardware, self._site, *image)

    def _fits(self, manifest):
        return install.is_over_image(manifest, self._board.image_version, self._board.image_digest)

    def _new_staging(self, slot, manifest):
        return install.Staging(self._board.root, slot, manifest)

    def _load_manifest(self, slot, digest):
        # -> the Manifest on file for a slot, None if it is another one. OSError if there is none.
        return install.load_manifest(self._board.root, slot, digest)

    def _whole_steps(self, slot, digest):
        # Generator; its value says whether a slot holds exactly what digest names.
        board = self._board
        return install.check_slot_steps(board.root, slot, digest, board.image_version, board.image_digest)

    def _arm(self):
        self._store(states.armed(self.record.state))
        self._reboot()
