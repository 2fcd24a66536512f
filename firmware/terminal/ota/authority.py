# What a signature alone does not say: that an offer is meant for this terminal now, and that its release key
# has not been replaced.
#
# The terminal asks with a nonce; the answer names the one bundle it shall run, under the session's key. An
# offer that no answer names is old, or another terminal's: who holds offers back or replays them gains
# nothing. Of release keys the newest epoch is remembered; a newer key is taken only when the one before has
# named it (rotation.py). A terminal that knows no release key yet takes the first one the root vouches for.

import asyncio

from ..compat import const, ticks_diff, ticks_ms
from ..wire.errors import UNSOLICITED, WireError
from ..wire.fresh import encode_ota_ask, open_ota_command, open_ota_fresh
from . import states
from .states import OtaError

_KEY = "release"  # in the counters region: the epoch of the newest release key, 4 bytes
_COMMAND = "command"  # the same: the number of the newest operator's command that was carried out
_WAIT_S = const(8)
_VALID_MS = const(10000)
_NONCE_BYTES = const(16)
_REF_BYTES = const(8)


class Authority:
    # identity, session, counters: the terminal's. random(n). send(kind, payload) -> bool: as OtaAgent's.

    def __init__(self, identity, session, counters, random, send):
        self._identity = identity
        self._session = session
        self._counters = counters
        self._random = random
        self._send = send
        self._nonces = []  # of the questions that were not answered yet
        self._refs = []  # the bundles the newest answers name
        self._answered_ms = None
        self._came = asyncio.Event()

    # -- is there an update?

    def ask(self, questions):
        # questions: [(hardware class, running release number), ...]. Answers to earlier ones count no more.
        self._nonces = []
        self._refs = []
        self._answered_ms = None
        for hardware, running in questions:
            nonce = self._random(_NONCE_BYTES)
            if self._send("ask", encode_ota_ask(nonce, hardware, running, self.epoch())):
                self._nonces.append(nonce)

    def on_answer(self, frame):
        # Raises WireError for what is not the answer to an open question.
        nonce, ref = open_ota_fresh(frame, self._identity, self._session, self._nonces)
        self._nonces.remove(nonce)
        if ref:
            self._refs.append(ref)
        self._answered_ms = ticks_ms()
        self._came.set()

    async def is_fresh(self, digest, questions):
        # Whether the server names this bundle now, to this terminal; asks unless it was asked just before.
        ref = digest[:_REF_BYTES]
        if self._names(ref):
            return True
        self.ask(questions)
        while self._nonces and not self._names(ref):
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), _WAIT_S)
            except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no other name for it
                break
        return self._names(ref)

    def _names(self, ref):
        age_ms = _VALID_MS if self._answered_ms is None else ticks_diff(ticks_ms(), self._answered_ms)
        return ref in self._refs and 0 <= age_ms < _VALID_MS

    # -- what does an operator say?

    def on_command(self, frame):
        # -> (layer, what). Raises WireError for what the server has not sealed, or has said before. The
        # number is remembered first: a power cut may swallow a command, and none is obeyed twice.
        number, layer, what = open_ota_command(frame, self._identity, self._session)
        if number <= int.from_bytes(self._counters.get(_COMMAND) or b"", "big"):
            raise WireError(UNSOLICITED)
        self._counters.put(_COMMAND, number.to_bytes(4, "big"))
        return layer, what

    # -- which release key?

    def epoch(self):
        # -> of the newest release key this terminal has accepted, 0 before the first.
        return int.from_bytes(self._counters.get(_KEY) or b"", "big")

    def check_key(self, epoch):
        # Raises OtaError OLD_KEY for a key that is older, or newer without a rotation.
        known = self.epoch()
        if known and epoch != known:
            raise OtaError(states.OLD_KEY)

    def accept_key(self, epoch):
        # A manifest signed by this key is about to be installed, or a rotation has named it.
        if epoch > self.epoch():
            self._counters.put(_KEY, epoch.to_bytes(4, "big"))

    async def rotate(self, root_key, frame):
        # Go on to the next release key if root, old and new key say so. Raises WireError.
        from ..wire.rsa import run
        from .rotation import claimed, rotation_steps

        before, after = claimed(frame)
        if before == self.epoch() and after > before:
            await run(rotation_steps(root_key, frame))
            self.accept_key(after)
