# The power-cut campaign's side of a terminal (bench images only; boot option "campaign").
#
# Start-up, loader, slots, journal, counters, menu and the update agent are the terminal's own. Only the
# network is played here: `Peer` stands where the MQTT client and the server's updates are, message by
# message, and the bundles it serves lie in the flash file behind the flash map. Time is virtual: when every
# task waits, the clock jumps, so a stalled download takes no time.
#
# Lines "@campaign {...}" tell the bench what happened; "at" is the flash step it happened behind.

import asyncio
import hashlib
import json
import os
from asyncio import core
from binascii import crc32, hexlify

import _board
from terminal.ota import states
from terminal.ota.authority import Authority
from terminal.version import VERSION
from terminal.wire.cbor import Reader, enc_array_head, enc_bstr, enc_uint
from terminal.wire.frames import encode_order
from terminal.wire.rsa import PublicKey

_ERASE_STEPS = 16
_QUIET_S = 60  # virtual; longer than the agent waits for a download that stalls
_LINK_DOWN_S = 5
_ALONE_S = 300  # longer than a start has to last
_ENDLESS = 300
_ENDLESS_EVERY_MS = 50
_RSA_BYTES = 256
_POURED = ("endless", "dribble", "slow")
_NEARLY_FULL_BYTES = 40  # too few for an order
_LONG_OP_BYTES = 900
_SHORT_BYTES = 48  # what an op's record and the note of its answer take beside the op, and a little more
_LINES = [[1, 2, []]]


def tell(**what):
    stats = _board.flash_stats()
    what["at"] = stats[1] + _ERASE_STEPS * stats[0]
    print("@campaign", json.dumps(what))


# ---------------------------------------------------------------- time


class _Clock:
    # Stands in for asyncio's poller: where that would sleep, time jumps.
    def __init__(self):
        self.map = {}
        self._ticks = core.ticks
        self._ahead_ms = 0

    def ticks(self):
        return core.ticks_add(self._ticks(), self._ahead_ms)

    def wait_io_event(self, duration_ms):
        if duration_ms > 0:
            self._ahead_ms += duration_ms

    def remove(self, task):
        pass


def _start_clock():
    clock = _Clock()
    core.ticks = clock.ticks
    core._io_queue = clock


# ---------------------------------------------------------------- signatures


_POWER_BYTES = 384


def _know_powers(at, count):
    # A life spends most of its time raising the same few signatures to the public exponent. The bench has
    # done that once: entries of SHA-256(modulus, base) and the result. Padding and hash are still judged by
    # the terminal, and what is not in the table is computed.
    reckon = PublicKey.power_steps
    entry = 32 + _POWER_BYTES
    flash = _board.Flash(0, _flash_bytes(at + count * entry))
    head = bytearray(32)

    def power_steps(self, base):
        key = hashlib.sha256(self.n.to_bytes(self.size, "big") + base.to_bytes(self.size, "big")).digest()
        for place in range(at, at + count * entry, entry):
            flash.readblocks(0, head, place)
            if head == key:
                yield
                return int.from_bytes(_read(place + 32, _POWER_BYTES), "big")
        return (yield from reckon(self, base))

    PublicKey.power_steps = power_steps


# ---------------------------------------------------------------- what the bench sees


def fingerprint(path):
    # -> 16 hex digits over names and contents of every file below a directory.
    found = []

    def walk(base, prefix):
        for name in os.listdir(base):
            child = base + "/" + name
            if os.stat(child)[0] & 0x4000:
                walk(child, prefix + name + "/")
            else:
                h = hashlib.sha256()
                with open(child, "rb") as file:
                    while True:
                        part = file.read(1024)
                        if not part:
                            break
                        h.update(part)
                found.append(prefix + name + " " + _hex(h.digest()))

    try:
        walk(path, "")
    except OSError:
        return "gone"
    return _hex(hashlib.sha256("\n".join(sorted(found)).encode()).digest()[:8])


def _slot_fingerprint(app):
    return None if app.slot == "factory" else fingerprint(app.board.root + "/slot/" + app.slot + "/app")


def _pending(app):
    return [[_hex(op_id), crc32(op)] for op_id, op in app.outbox.pending()]


def _hex(data):
    return hexlify(data).decode()


# ---------------------------------------------------------------- bundles


class Bundle:
    # Three spans of the flash file: the offer, the joined chunk hashes, the joined files.
    def __init__(self, spans):
        self.offer = _read(*spans[0])
        self._hashes, self._data, self.size, self.version = spans[1:]
        head = Reader(self.offer)
        head.array(2)
        self.ref = hashlib.sha256(head.bstr(0, 8192)).digest()[:8]
        self.chunks = -(-self._data[1] // self.size)

    def hashes(self, index):
        at, length = self._hashes
        return _read(at + index * 1024, min(1024, length - index * 1024))

    def chunk(self, index):
        at, length = self._data
        offset = index * self.size
        return _read(at + offset, min(self.size, length - offset))


def _read(at, length):
    data = bytearray(length)
    if length:
        _board.Flash(0, _flash_bytes(at + length)).readblocks(0, data, at)
    return bytes(data)


def _flash_bytes(end):
    return (end + 4095) & ~4095


# ---------------------------------------------------------------- the other end of the link


class Peer:
    # Stands where app.client is. script: the boot option.
    #   bundles {name: spans}, offer: a name, offer_version: offered while less than this runs
    #   orders, answers: numbers of messages at which a guest orders, or the server answers one
    #   cut: number of the message that the link breaks at (it is lost); after: it still arrives
    #   twice: number of the message that arrives twice
    #   content: what is wrong with the bundle's bytes (see _spoil)
    #   arm: arguments of _board.cut_at, from the first line on
    #   busy: the journal's ring is filled once round
    #   count: every message is told
    #   rotation: span of a statement about release keys that comes before the offer
    #   cancel: number of the message at which an operator cancels the update; 0: as soon as it is on trial
    #   powers: place and number of signatures that need not be raised again
    #   guests: orders that wait when the link comes; unanswered: they go on waiting
    #   late: seconds until the link comes
    #   unplug: the power goes before there is a session; hang: the application stops there
    #   alone: on trial the power goes after minutes without one; unfit: the self-test fails
    #   crash: a version that dies at every start once it is confirmed; restart: it restarts when all is done

    def __init__(self, app, script):
        self.online = True
        self.app = app
        self._script = script
        self._bundles = {}
        for name, spans in script["bundles"].items():
            self._bundles[name] = Bundle(spans)
        self._queue = []
        self._moved = asyncio.Event()
        self._pouring = None  # the task, while one answer takes its time
        self.messages = 0
        self._seed = script.get("seed", 1)

    # -- what the application calls

    def publish(self, topic, payload, retain=False):
        kind = topic.decode().rsplit("/", 1)[-1]
        self._queue.append((kind, bytes(payload)))
        if kind == "state":
            tell(handed=_hex(payload))
        self._moved.set()

    def flush(self):
        pass

    # -- the link

    async def run(self):
        if self._script.get("unfit"):
            self.app.updates.is_sound = self._fails
        if self._script.get("alone") and self.app.board.on_trial:
            self.online = False
            await asyncio.sleep(_ALONE_S)
            _board.poweroff(0)
        if "late" in self._script:
            self.online = False
            await asyncio.sleep(self._script["late"])
            self.online = True
        if self._script.get("cancel") == 0 and self.app.board.on_trial:
            self._cancel()
            # What comes next must not go into the slot that runs; an honest terminal has restarted by now.
            self._queue.append(("offer", self._bundles["other"].offer))
        self._connect()
        while True:
            try:
                await asyncio.wait_for(self._moved.wait(), _QUIET_S)
            except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no other name for it
                return
            self._moved.clear()
            while self._queue:
                kind, payload = self._queue.pop(0)
                await self._carry(kind, payload)
                await asyncio.sleep_ms(0)

    def _fails(self):
        # What an application does whose self-test has failed.
        self.app.board.reset()
        return False

    def _cancel(self):
        self.app.updates.load().cancel()

    def _connect(self):
        app = self.app
        app.updates.link_up()
        tell(handshake=app.counters.next_handshake())
        for op, crc in _pending(app):
            tell(sent=op, crc=crc)
        if app.updates.prove():
            tell(confirmed=VERSION)
        if "rotation" in self._script:
            self._queue.append(("rotation", _read(*self._script["rotation"])))
        self._offer()

    def _offer(self):
        name = self._script.get("offer")
        if name and (self._bundles[name].version > VERSION or self._script.get("insist")):
            self._queue.append(("offer", self._spoil_offer(self._bundles[name].offer)))
            self._moved.set()

    async def _carry(self, kind, payload):
        self.messages += 1
        number = self.messages
        script = self._script
        if script.get("count"):
            tell(message=number, kind=kind)
        if number in script.get("orders", ()):
            self._order()
        if number in script.get("answers", ()):
            self._answer_one()
        if number == script.get("cancel"):
            self._cancel()
        broken = script.get("cut") == number
        if not broken or script.get("after"):
            self._arrive(kind, payload)
            if script.get("twice") == number:
                self._arrive(kind, payload)
        if broken:
            await self._break_link()

    async def _break_link(self):
        self.online = False
        self._queue.clear()
        await asyncio.sleep(_LINK_DOWN_S)
        self.online = True
        self._connect()

    def _arrive(self, kind, payload):
        updates = self.app.updates
        if kind == "offer":
            updates.on_offer(payload)
        elif kind == "chunk":
            updates.on_chunk(payload)
        elif kind == "rotation":
            updates.on_rotation(payload)
        elif kind == "state":
            tell(told=_hex(payload))
        elif kind == "get":
            self._answer_get(payload)

    def _answer_get(self, request):
        reader = Reader(request)
        reader.array(4)
        ref = bytes(reader.bstr(8))
        what, first, count = reader.uint(), reader.uint(), reader.uint()
        for bundle in self._bundles.values():
            if bundle.ref == ref:
                if what == 1:
                    tell(chunk=first, count=min(count, bundle.chunks - first))
                for index in range(first, first + count):
                    if what == 0 and index * 32 < bundle.chunks:
                        self._send_chunk(ref, 0, index, bundle.hashes(index))
                    elif what == 1 and index < bundle.chunks and self._script.get("content") in _POURED:
                        if self._pouring is None:
                            self._pouring = asyncio.create_task(self._pour(bundle, index))
                    elif what == 1 and index < bundle.chunks:
                        for answer in self._spoil(bundle, index):
                            self._send_chunk(ref, 1, *answer)

    def _send_chunk(self, ref, what, index, data):
        frame = enc_array_head(4) + enc_bstr(ref) + enc_uint(what) + enc_uint(index) + enc_bstr(data)
        self._queue.append(("chunk", frame))
        self._moved.set()

    # -- content faults

    def _spoil_offer(self, frame):
        content = self._script.get("content")
        if content == "random-offer":
            return self._random(len(frame))
        if content == "empty-offer":
            return b""
        if content == "cut-offer":
            return frame[: len(frame) // 2]
        if content == "flipped-offer":
            return frame[:300] + bytes((frame[300] ^ 1,)) + frame[301:]
        return frame

    def _spoil(self, bundle, index):
        # -> [(index, bytes), ...] to send instead of one chunk.
        content = self._script.get("content")
        data = bundle.chunk(index)
        last = index == bundle.chunks - 1
        if content == "random":
            data = self._random(len(data))
        elif content == "truncated" and last:
            return []
        elif content == "short" and last:
            data = data[:-1]
        elif content == "empty":
            data = b""
        elif content == "swapped" and index >= bundle.chunks // 2:
            data = self._bundles["other"].chunk(index)
        elif content == "shifted":
            return [(index + 1, data)]
        elif content == "oversized":
            data = data + data
        return [(index, data)]

    async def _pour(self, bundle, index):
        # Answers that take their time, or know no end.
        content = self._script["content"]
        data = bundle.chunk(index)
        if content == "endless":
            for n in range(_ENDLESS):
                self._send_chunk(bundle.ref, 1, index + n, self._random(bundle.size))
                await asyncio.sleep_ms(_ENDLESS_EVERY_MS)
        elif content == "dribble":  # a byte a second, each in a frame of its own
            for n in range(len(data)):
                self._send_chunk(bundle.ref, 1, index, data[n : n + 1])
                await asyncio.sleep(1)
        else:  # slow: the chunk is whole when its bytes have come, one a second
            await asyncio.sleep(len(data))
            self._send_chunk(bundle.ref, 1, index, data)
        if content != "endless":  # once is enough
            self._pouring = None

    def _random(self, length):
        found = bytearray(length)
        for n in range(length):
            self._seed = (self._seed * 1103515245 + 12345) & 0x7FFFFFFF
            found[n] = self._seed >> 16 & 255
        return bytes(found)

    # -- guests

    def _order(self):
        app = self.app
        op_id = app.outbox.next_op_id(self._random)
        op = encode_order(op_id, "1", _LINES, 1, 520)
        app.outbox.append(op_id, op)
        tell(queued=_hex(op_id), crc=crc32(op))
        tell(sent=_hex(op_id), crc=crc32(op))

    def fill_journal(self):
        # Days of orders, all answered but the first ones, until the next order makes the journal's ring
        # reclaim the sector those lie in. Few long records, because every start reads all of them.
        ring = self.app.outbox._ring
        first = min(self.app.outbox._pending.values()) >> 23
        while ring.oldest() != first or ring.free > _LONG_OP_BYTES + _SHORT_BYTES:
            self._answered(_LONG_OP_BYTES)
        if ring.free > _NEARLY_FULL_BYTES:
            self._answered(ring.free - _SHORT_BYTES)

    def _answered(self, op_bytes):
        outbox = self.app.outbox
        op_id = outbox.next_op_id(self._random)
        op = bytes(op_bytes)
        outbox.append(op_id, op)
        outbox.done(op_id, 0)
        outbox.flush()
        tell(past=_hex(op_id), crc=crc32(op))

    def _answer_one(self):
        for op_id, _ in self.app.outbox.pending():
            self.app.outbox.done(op_id, 0)
            self.app.outbox.flush()
            tell(settled=_hex(op_id))
            return

    def answer_all(self):
        for op_id, _ in list(self.app.outbox.pending()):
            tell(answered=_hex(op_id))
            self.app.outbox.done(op_id, 0)


# ---------------------------------------------------------------- one life


class _Named(Authority):
    # The played server has no session to name an offer in: every signed one is meant for this terminal, now.
    # Which release key may sign it is judged as ever.

    def ask(self, questions):
        pass

    async def is_fresh(self, digest, questions):
        return True


def _without_sessions(app):
    updates = app.updates
    updates.authority = _Named(app.identity, app.session, app.counters, app.board.random, None)
    for agent in (updates.agent, updates.image_agent):
        if agent is not None:
            agent.authority = updates.authority


def _who(identity):
    # -> 16 hex digits over everything an identity holds, the private key too.
    key = identity.private
    found = hashlib.sha256(repr(identity[:-1]).encode())
    for number in (key.public.n, key._p, key._q, key._dp, key._dq, key._qi):
        found.update(number.to_bytes(_RSA_BYTES, "big"))
    return _hex(found.digest()[:8])


async def run(app, error):
    # One life of a terminal under test; ends with the power off, or in a reset that the terminal wants.
    # app: None for a terminal that does not start, which then says why in error.
    if app is None:
        tell(refused=error.code)
        _board.poweroff(0)
    script = app.options["campaign"]
    menu = app.menu.current()
    tell(
        started=VERSION,
        slot=app.slot,
        files=_slot_fingerprint(app),
        trial=app.board.on_trial,
        cause=app.board.reset_cause(),
        boots=app.boots,
        who=_who(app.identity),
        menu=menu.version if menu else None,
        pending=_pending(app),
        lost=app.outbox.lost,
    )
    if "arm" in script:
        _board.cut_at(*script["arm"])
    if script.get("unplug"):
        _board.poweroff(0)
    while script.get("hang") and app.board.on_trial:
        pass
    if script.get("crash") == VERSION and not app.board.on_trial:
        app.board.reset()
    _start_clock()
    if "powers" in script:
        _know_powers(*script["powers"])
    peer = Peer(app, script)
    app.client = peer
    _without_sessions(app)
    for _ in range(script.get("guests", 0)):
        peer._order()
    if script.get("busy"):
        peer.fill_journal()
    updates = asyncio.create_task(app.updates.run())
    await peer.run()
    if updates.done():
        await updates  # says why
    if not script.get("unanswered"):
        peer.answer_all()
    app.outbox.flush()
    app.outbox.tidy()
    app.counters.tidy()
    agent = app.updates.agent
    reason = states.REASONS[agent.record.state.reason] if agent else None
    tell(
        ended=VERSION,
        slot=app.slot,
        files=_slot_fingerprint(app),
        messages=peer.messages,
        reason=reason,
        pending=len(app.outbox),
        violations=_board.flash_stats()[3],
    )
    if script.get("restart"):
        app.board.reset()
    _board.poweroff(0)
