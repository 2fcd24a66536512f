"""From a published frame to its answer: verify, limit, queue, commit, reply, PUBACK - in this order.

Runs on the event loop without awaiting anything. A frame that proves nothing is counted and acknowledged at
transport level (sending it again would not help); one that could not be stored is not acknowledged at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from server.devices.seams import Clock
from server.devices.verify import NEEDS_NEW_SESSION, OpVerifier, Session, VerifiedOp, sid_of
from server.ordering.apply import Answered, ApplyOp, SessionGone
from server.ordering.catalogue import Catalogue
from server.storage.database import StorageError
from server.storage.writer import Outcome, QueueFull, Writer
from server.transport.acl import HELLO, OPS, STATE
from server.transport.handshakes import Handshakes
from server.transport.limits import RateLimiter
from server.transport.notices import Notices
from server.transport.observations import Observations
from server.transport.updates import ASK, GET, Updates
from server.transport.updates import STATE as UPDATE_STATE
from server.wire.cose import is_short_mac0
from server.wire.errors import Refusal
from server.wire.frames import Presence, unknown_session
from server.wire.ops import Reply, Status

QUEUE_FULL_RETRY_MS = 500
_NO_CHAIN = bytes(32)
_log = logging.getLogger("tableside.ingest")

Done = Callable[[bool], None]
Answer = Callable[[bytes], None]


class Ingest:
    """The broker's ``on_publish``. ``send(device, topic_tail, payload)`` publishes below
    ``d/<site>/<device>/``.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        verifier: OpVerifier,
        sessions: dict[str, Session],
        writer: Writer,
        limiter: RateLimiter,
        observations: Observations,
        handshakes: Handshakes,
        clock: Clock,
        send: Callable[[str, str, bytes], None],
        updates: Updates,
        notices: Notices,
    ) -> None:
        self._catalogue = catalogue
        self._verifier = verifier
        self._sessions = sessions
        self._writer = writer
        self._limiter = limiter
        self._observations = observations
        self._handshakes = handshakes
        self._clock = clock
        self._send = send
        self._updates = updates
        self._notices = notices

    def __call__(self, device: str, kind: str, payload: bytes, done: Done) -> None:
        """Take one message of an authenticated device, published under its own topic."""
        if self._limiter.frame(device) > 0:
            self._observations.refuse(device, "frame_rate_limited")
            done(True)
        elif kind == OPS and is_short_mac0(payload):
            self._telemetry(device, payload)
            done(True)
        elif kind == OPS:
            self.op(device, payload, lambda answer: self._send(device, "reply", answer), done)
        elif kind == HELLO:
            self._handshakes.hello(device, payload, done)
        else:
            self._other(device, kind, payload)
            done(True)

    def _other(self, device: str, kind: str, payload: bytes) -> None:
        try:
            if kind == STATE:
                presence = Presence.decode(payload)
                self._observations.present(device, presence)
                self._updates.present(device, presence)
            elif kind == GET:
                self._updates.get(device, payload)
            elif kind == UPDATE_STATE:
                self._updates.state(device, payload)
            elif kind == ASK:
                self._updates.ask(device, payload)
            else:
                self._observations.refuse(device, "unknown_topic")
        except Refusal as refusal:
            self._observations.refuse(device, refusal.code)

    def _telemetry(self, device: str, frame: bytes) -> None:
        """Keep the newest of what a terminal measures; nobody is answered."""
        session = self._sessions.get(device)
        if session is None or self._limiter.telemetry(device) > 0:
            self._observations.refuse(device, "telemetry_dropped")
            return
        try:
            telemetry = self._verifier.open_telemetry(session, frame)
        except Refusal as refusal:
            self._observations.refuse(device, refusal.code)
            return
        if telemetry is not None:
            self._observations.measured(device, telemetry)

    def op(self, device: str, frame: bytes, answer: Answer, done: Done) -> None:
        """Verify, queue and apply one op-frame of a device, however it came.

        ``answer`` gets the reply-frame or hint, if there is one; ``done(stored)`` is called after it, once.
        """
        session = self._sessions.get(device)
        if session is None:
            self._no_session(device, frame, "unknown_session", answer)
            done(True)
            return
        try:
            verified = self._verifier.open(session, frame)
        except Refusal as refusal:
            if refusal.code in NEEDS_NEW_SESSION:
                self._no_session(device, frame, refusal.code, answer)
            else:
                self._observations.refuse(device, refusal.code)
            done(True)
            return
        self._queue(device, session, verified, answer, done)

    def _queue(self, device: str, session: Session, verified: VerifiedOp, answer: Answer, done: Done) -> None:
        if verified.duplicate:
            self._observations.refuse(device, "replayed_transmission")
        known = self._catalogue.snapshot.devices.get(device)
        wait_ms = self._limiter.op(device, known.table if known is not None else "")
        code = "op_rate_limited"
        if wait_ms == 0:
            job = ApplyOp(
                self._catalogue,
                device,
                session.row.sid,
                verified.op,
                verified.op_hash,
                self._clock.unix_time(),
                verified.op_bytes,
            )
            try:
                self._writer.submit(job, lambda outcome: self._settle(device, session, outcome, answer, done))
                return
            except QueueFull:
                wait_ms, code = QUEUE_FULL_RETRY_MS, "queue_full"
        self._observations.refuse(device, code)
        reply = Reply(verified.op.op_id, Status.RATE_LIMITED, wait_ms, 0, 0, 0, _NO_CHAIN)
        answer(self._verifier.seal_reply(session, reply))
        done(True)

    def _settle(
        self, device: str, session: Session, outcome: Outcome[Answered], answer: Answer, done: Done
    ) -> None:
        """After the commit: reply first, PUBACK last."""
        answered = outcome.value
        if answered is not None:
            if answered.reply.status == Status.REJECTED:
                self._observations.refuse(device, f"rejected_{answered.reply.arg}")
            answer(self._verifier.seal_reply(session, answered.reply))
            self._notices.tell(answered.notices)
            done(True)
        elif isinstance(outcome.error, SessionGone):
            if self._sessions.get(device) is session:
                del self._sessions[device]
            self._observations.refuse(device, "unknown_session")
            answer(unknown_session(session.row.sid))
            done(True)
        else:
            self._observations.refuse(device, "storage_error")
            if isinstance(outcome.error, StorageError):
                _log.error("%s", outcome.error)
            else:
                _log.error("an op of %s could not be applied", device, exc_info=outcome.error)
            done(False)

    def _no_session(self, device: str, frame: bytes, code: str, answer: Answer) -> None:
        self._observations.refuse(device, code)
        try:
            sid = sid_of(frame)
        except Refusal:
            return
        answer(unknown_session(sid))
