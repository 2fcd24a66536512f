# The secured session with the order server, as a state machine without I/O: frames in, frames out.
#
# Everything that changes the state is in _NEXT and in the methods that name its events. The caller owns the
# clock, the network and the retry timers; long computations are generators (see wire/rsa.py), one at a time.
#
# Trust runs one way: the root key vouches for the server-sign key by certificate, that key signs beacon and
# Accept, and only an Accept whose MAC and signature both verify, for exactly the Hello that was sent, makes a
# session. Hints are unauthenticated: they may cost a retry or a new handshake at a bounded rate, and nothing
# else.
import hashlib
from collections import namedtuple

from .compat import const, ticks_diff
from .wire.cbor import limit
from .wire.cose import (
    MAX_SEQUENCE,
    Opener,
    Sealer,
    aad,
    mac0_encode,
    mac0_parse,
    mac0_verify,
    sign1_parse,
    sign1_sign_steps,
    sign1_verify_steps,
)
from .wire.errors import (
    BAD_SIGNATURE,
    STALE,
    TOO_LARGE,
    UNSOLICITED,
    WRONG_KEY,
    WRONG_SITE,
    WRONG_STATE,
    WireError,
)
from .wire.frames import (
    HELLO_REFUSED,
    MAX_ANSWER_BYTES,
    MAX_HELLO_BYTES,
    RATE_LIMITED,
    UNKNOWN_SESSION,
    encode_hello,
    encode_resume,
    is_hint,
    parse_accept,
    parse_beacon,
    parse_hint,
)
from .wire.keys import SERVER_SIGN, certificate_steps, session_keys, transcript_hash
from .wire.rsa import PublicKey, oaep_encrypt_steps

# states
IDLE = const(0)  # no beacon of this site seen yet
HAVE_BEACON = const(1)  # a Hello can be made
HELLO_SENT = const(2)  # hello_frame (a Hello or a Resume) is on its way; its answer is awaited
ESTABLISHED = const(3)  # sealer and opener are ready

# events
_BEACON = const(0)
_HELLO = const(1)
_ACCEPT = const(2)
_REFUSED = const(3)

_NEXT = {
    (IDLE, _BEACON): HAVE_BEACON,
    (HAVE_BEACON, _BEACON): HAVE_BEACON,
    (HELLO_SENT, _BEACON): HELLO_SENT,
    (ESTABLISHED, _BEACON): ESTABLISHED,
    (HAVE_BEACON, _HELLO): HELLO_SENT,
    (HELLO_SENT, _HELLO): HELLO_SENT,  # the answer never came
    (ESTABLISHED, _HELLO): HELLO_SENT,  # a new session replaces the old
    (HELLO_SENT, _ACCEPT): ESTABLISHED,
    (HELLO_SENT, _REFUSED): HAVE_BEACON,
}

_REKEY_MARGIN = const(4096)  # messages that may still be sealed while a new session is made
_FIRST_WAIT_MS = const(1000)
_TICKET = "resume"  # key in the counters region: session id, resume key
_TICKET_BYTES = const(36)
_LONGEST_WAIT_MS = const(300000)

# What an answer to a Hello or Resume means. kind: established; retry = send hello_frame again, refused = make
# a new one, both not before wait_ms.
Outcome = namedtuple("Outcome", ("kind", "wait_ms"))

# The claims of a verified beacon that outlive its frame. server_key signs menus and Accepts.
Site = namedtuple(
    "Site", ("epoch", "counter", "time", "menu_version", "menu_hash", "minimum_firmware", "server_key")
)


class Session:
    # identity: wire.keys.Identity. root: the PublicKey this device trusts. firmware: running release number.
    # counters: persistent, .beacon(), .store_beacon(epoch, counter), .next_handshake(), .get(key),
    # .put(key, bytes), each durable on return. random(n): n random bytes.

    def __init__(self, identity, root, counters, random, firmware):
        self.state = IDLE
        self.site = None  # Site of the newest verified beacon
        self.hello_frame = None  # to send, or send again, while HELLO_SENT
        self.sid = None
        self.accept = None  # wire.frames.Accept of the session
        self.sealer = None
        self.opener = None
        self.keys = None  # (device to server, server to device, th8) of the session, for rare frames
        self._identity = identity
        self._root = root
        self._counters = counters
        self._random = random
        self._firmware = firmware
        self._candidate = None  # newest beacon frame, not verified
        self._beacon_frame = None  # newest verified beacon frame
        self._decrypt = None  # its decryption key, encoded
        self._certificate = None
        self._certificate_hash = None
        self._hello = None  # (hello hash, nonce_d, secret, transcript hash, server key)
        self._resuming = False  # what was sent last is a Resume
        self._busy = False
        self._refusals = 0
        self._lost = False
        self._lost_at_ms = None
        self._lost_gap_ms = _FIRST_WAIT_MS

    def _move(self, event):
        following = _NEXT.get((self.state, event))
        if following is None:
            raise WireError(WRONG_STATE)
        self.state = following

    def _alone(self, steps):
        # Two handshakes at once would share one state: the second is refused.
        if self._busy:
            raise WireError(WRONG_STATE)
        self._busy = True
        try:
            return (yield from steps)
        finally:
            self._busy = False

    # ------------------------------------------------------------ beacons

    def on_beacon(self, frame):
        # Keeps the frame for the next verification. Returns True if it claims something new about the site
        # (or nothing is known yet), so that verifying it now may pay. Raises WireError if it is malformed, of
        # another site, or older than one this device has already verified.
        beacon = parse_beacon(frame)
        if beacon.site != self._identity.site:
            raise WireError(WRONG_SITE)
        if (beacon.epoch, beacon.counter) < self._counters.beacon():
            raise WireError(STALE)
        self._move(_BEACON)
        if frame == self._beacon_frame:
            self._candidate = None
            return False
        self._candidate = bytes(frame)
        site = self.site
        return site is None or (
            beacon.epoch,
            beacon.menu_version,
            beacon.menu_hash,
            beacon.minimum_firmware,
        ) != (
            site.epoch,
            site.menu_version,
            site.menu_hash,
            site.minimum_firmware,
        )

    def verify_beacon_steps(self):
        # Generator; its value is the Site of the newest beacon, verified. Raises WireError if that beacon is
        # not the server's (it is dropped), or WRONG_STATE if none was ever seen.
        return self._alone(self._verify())

    def _verify(self):
        frame = self._candidate
        if frame is None:
            if self.site is None:
                raise WireError(WRONG_STATE)
            return self.site
        # Whatever happens, this frame is not looked at twice.
        self._candidate = None
        beacon = parse_beacon(frame)
        certificate = yield from self._certified(beacon.certificate)
        if beacon.kid != certificate.public.kid or beacon.epoch != certificate.epoch:
            raise WireError(WRONG_KEY)
        external_aad = aad("beacon", self._identity.site, "")
        key = certificate.public
        if not (yield from sign1_verify_steps(key, external_aad, beacon.payload, beacon.signature)):
            raise WireError(BAD_SIGNATURE)
        mark = self._counters.beacon()
        if (beacon.epoch, beacon.counter) < mark:
            raise WireError(STALE)
        if (beacon.epoch, beacon.counter) != mark:
            self._counters.store_beacon(beacon.epoch, beacon.counter)
        self._beacon_frame = frame
        self._decrypt = beacon.decrypt
        self.site = Site(
            beacon.epoch,
            beacon.counter,
            beacon.time,
            beacon.menu_version,
            bytes(beacon.menu_hash),
            beacon.minimum_firmware,
            key,
        )
        return self.site

    def _certified(self, frame):
        # The root's signature is checked once per certificate, not once per beacon.
        digest = hashlib.sha256(frame).digest()
        if digest != self._certificate_hash:
            site = self._identity.site
            self._certificate = yield from certificate_steps(self._root, frame, SERVER_SIGN, site)
            self._certificate_hash = digest
        return self._certificate

    # ------------------------------------------------------------ handshake

    def hello_steps(self, menu_version, pending):
        # Generator; its value is the Hello frame to send. menu_version: of the stored menu; pending: ops in
        # the outbox. Uses the newest beacon, verifying it first.
        return self._alone(self._make_hello(menu_version, pending))

    def _make_hello(self, menu_version, pending):
        if (self.state, _HELLO) not in _NEXT:
            raise WireError(WRONG_STATE)
        site = yield from self._verify()
        me = self._identity
        random = self._random
        beacon_frame = self._beacon_frame
        # Durable before the frame exists: a power cut here wastes a number and never repeats one.
        handshake = self._counters.next_handshake()
        nonce_d = random(16)
        secret = random(32)
        decrypt = PublicKey.from_spki(self._decrypt)
        label = aad("oaep", me.site, me.device)
        ciphertext = yield from oaep_encrypt_steps(decrypt, secret, label, random)
        payload = encode_hello(
            me.device,
            handshake,
            nonce_d,
            site.counter,
            hashlib.sha256(beacon_frame).digest(),
            ciphertext,
            self._firmware,
            menu_version,
            pending,
        )
        kid = me.private.public.kid
        external_aad = aad("hello", me.site, me.device)
        frame = yield from sign1_sign_steps(me.private, kid, external_aad, payload, random)
        if len(frame) > MAX_HELLO_BYTES:
            raise WireError(TOO_LARGE)
        self._sent(frame, nonce_d, secret, site)
        return frame

    def _sent(self, frame, nonce_d, secret, site):
        transcript = transcript_hash(self._beacon_frame, frame)
        self._hello = (hashlib.sha256(frame).digest(), nonce_d, secret, transcript, site.server_key)
        self.hello_frame = frame
        self._resuming = False
        self._move(_HELLO)

    def can_resume(self):
        # True while this device holds the key of a session that a Resume may replace, also after a reboot.
        return len(self._counters.get(_TICKET) or b"") == _TICKET_BYTES

    def forget_ticket(self):
        # The next handshake is a Hello.
        if self._counters.get(_TICKET):
            self._counters.put(_TICKET, b"")

    def resume_steps(self, menu_version, pending):
        # Generator; its value is the Resume frame to send, made without the device's RSA key. Arguments and
        # answer are those of a Hello. Raises WireError(WRONG_STATE) unless can_resume().
        return self._alone(self._make_resume(menu_version, pending))

    def _make_resume(self, menu_version, pending):
        if (self.state, _HELLO) not in _NEXT or not self.can_resume():
            raise WireError(WRONG_STATE)
        site = yield from self._verify()
        me = self._identity
        ticket = self._counters.get(_TICKET)
        sid, key = ticket[:4], ticket[4:]
        handshake = self._counters.next_handshake()
        nonce_d = self._random(16)
        payload = encode_resume(
            me.device,
            handshake,
            nonce_d,
            site.counter,
            hashlib.sha256(self._beacon_frame).digest(),
            self._firmware,
            menu_version,
            pending,
        )
        frame = mac0_encode(key, sid, aad("resume", me.site, me.device, sid), payload)
        self._sent(frame, nonce_d, key, site)
        self._resuming = True
        return frame

    def answer_steps(self, frame):
        # Generator; its value is the Outcome of what arrived on the device's hello topic. Raises WireError
        # for anything that is no answer to the Hello last sent: the caller goes on waiting.
        return self._alone(self._answer(frame))

    def on_hello_answer(self, frame):
        return self.answer_steps(frame)

    def _answer(self, frame):
        if self.state != HELLO_SENT:
            raise WireError(UNSOLICITED)
        if is_hint(frame):
            return self._hello_hint(parse_hint(frame))
        limit(frame, MAX_ANSWER_BYTES)
        me = self._identity
        hello_hash, nonce_d, secret, transcript, server_key = self._hello
        nonce_s, payload, tag = mac0_parse(frame, 16)
        nonce_s = bytes(nonce_s)
        d2s, s2d, resume = session_keys(secret, nonce_d, nonce_s, me.site, me.device, transcript)
        th8 = transcript[:8]
        mac0_verify(s2d, aad("accept", me.site, me.device, th8), payload, tag)
        kid, signed, signature = sign1_parse(payload)
        if kid != server_key.kid:
            raise WireError(WRONG_KEY)
        external_aad = aad("accept", me.site, me.device)
        if not (yield from sign1_verify_steps(server_key, external_aad, signed, signature)):
            raise WireError(BAD_SIGNATURE)
        accept = parse_accept(signed)
        if accept.nonce_s != nonce_s or accept.hello_hash != hello_hash:
            raise WireError(UNSOLICITED)
        # Durable before the session is used: it replaces the key that a Resume has just spent.
        self._counters.put(_TICKET, accept.sid + resume)
        self._move(_ACCEPT)
        self.accept = accept
        self.sid = accept.sid
        self.keys = (d2s, s2d, th8)
        self.sealer = Sealer(d2s, me.site, me.device, accept.sid, th8)
        self.opener = Opener(s2d, me.site, me.device, accept.sid, th8)
        self._forget_hello()
        self._refusals = 0
        self._lost = False
        return Outcome("established", 0)

    def _hello_hint(self, hint):
        if hint.ref != self._hello[0][:8]:
            raise WireError(UNSOLICITED)
        if hint.status == RATE_LIMITED:
            return Outcome("retry", min(hint.arg, _LONGEST_WAIT_MS))
        if hint.status != HELLO_REFUSED:
            raise WireError(UNSOLICITED)
        self._move(_REFUSED)
        self._forget_hello()
        if self._resuming:  # at worst a forged hint: it has cost one Hello, and there is no second Resume
            self.forget_ticket()
            return Outcome("refused", 0)
        wait_ms = min(_FIRST_WAIT_MS << min(self._refusals, 16), _LONGEST_WAIT_MS)
        self._refusals += 1
        # Terminals refused together do not come back together.
        return Outcome("refused", wait_ms // 2 + wait_ms * self._random(1)[0] // 512)

    def _forget_hello(self):
        self._hello = None
        self.hello_frame = None

    # ------------------------------------------------------------ messages

    def seal(self, op):
        # The op-frame around an encoded op; sealer.seal_into() does the same without the allocation.
        if self.state != ESTABLISHED:
            raise WireError(WRONG_STATE)
        return self.sealer.seal(op)

    def open(self, frame):
        # (op_id, status, arg, order_number, total_minor, lsn, chain) of a reply frame, in the order of
        # frames.Reply.
        if self.opener is None:
            raise WireError(WRONG_STATE)
        return self.opener.open(frame)

    def on_hint(self, frame, now_ms):
        # A hint on the reply topic. Returns True if it makes needs_rekey() true: it names the current
        # session, and the last time a hint did so is long enough ago.
        hint = parse_hint(frame)
        if hint.status != UNKNOWN_SESSION or self.state != ESTABLISHED or hint.ref != self.sid:
            raise WireError(UNSOLICITED)
        if self._lost:
            return True
        gap_ms = self._lost_gap_ms
        if self._lost_at_ms is not None:
            elapsed_ms = ticks_diff(now_ms, self._lost_at_ms)
            if 0 <= elapsed_ms < gap_ms:
                return False
            # Hints that keep coming cost less and less: the gap doubles until a session has lasted.
            quiet = elapsed_ms < 0 or elapsed_ms > 10 * gap_ms
            self._lost_gap_ms = _FIRST_WAIT_MS if quiet else min(2 * gap_ms, _LONGEST_WAIT_MS)
        self._lost = True
        self._lost_at_ms = now_ms
        return True

    def needs_rekey(self):
        # True while a Hello should replace the established session.
        return self.state == ESTABLISHED and (
            self._lost or self.sealer.sequence >= MAX_SEQUENCE - _REKEY_MARGIN
        )
