"""Verification of ops and sealing of replies: the hot path between broker and order queue.

The order of checks is the security argument. Length and constant bytes first, then the MAC over site,
device, session and transcript, and only then the payload is decoded and the replay window moves. Bytes that
no session key made can therefore neither reach the decoder nor change any state.
"""

from dataclasses import dataclass

from server.devices.records import SESSION_MESSAGES, SessionRow
from server.devices.seams import Clock
from server.devices.window import Freshness, ReplayWindow
from server.wire import aad
from server.wire.commands import OtaCommand
from server.wire.cose import (
    is_short_mac0,
    mac0,
    mac_prefix,
    parse_mac0,
    parse_short_mac0,
    verify_mac0,
    verify_short_mac0,
)
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import SID_BYTES
from server.wire.freshness import OtaFresh
from server.wire.notices import Notice
from server.wire.ops import OP_MAX_BYTES, Op, OpMessage, Reply, op_hash
from server.wire.requests import Telemetry

NOTICES_PER_S = 64


class Session:
    """A stored session with what is precomputed and remembered for it in memory.

    The replay window is not stored: after a restart it begins empty. That is harmless, because the op-id
    decides about effects; a replayed op finds its stored answer and is answered again.
    """

    __slots__ = ("_notice_prefix", "_notice_seq", "_op_prefix", "_reply_prefix", "heard", "row", "window")

    def __init__(self, row: SessionRow) -> None:
        self.row = row
        self.window = ReplayWindow()
        self._op_prefix = mac_prefix(aad.op(row.site, row.device, row.sid, row.th8))
        self._reply_prefix = mac_prefix(aad.reply(row.site, row.device, row.sid, row.th8))
        self._notice_prefix = mac_prefix(aad.notice(row.site, row.device, row.sid, row.th8))
        self._notice_seq = 0
        self.heard = 0  # sequence number of the newest telemetry

    @property
    def op_prefix(self) -> bytes:
        """The constant part of every op's MAC input."""
        return self._op_prefix

    @property
    def reply_prefix(self) -> bytes:
        """The constant part of every reply's MAC input."""
        return self._reply_prefix

    def seal_notice(self, notice: Notice, now_s: int) -> bytes:
        """Return the notice-frame with the next sequence number.

        Numbers begin with the session's age, NOTICES_PER_S each second, so that they grow over a restart of
        the server without being stored.
        """
        row = self.row
        floor = max(0, now_s - row.created_at) * NOTICES_PER_S
        self._notice_seq = max(self._notice_seq + 1, floor)
        return mac0(row.k_s2d, row.sid, notice.payload(self._notice_seq), self._notice_prefix)

    def seal_fresh(self, fresh: OtaFresh) -> bytes:
        """Return the answer to a terminal's question whether there is an update."""
        row = self.row
        return fresh.seal(row.k_s2d, row.site, row.device, row.sid, row.th8)

    def seal_command(self, command: OtaCommand) -> bytes:
        """Return an operator's command for this terminal."""
        row = self.row
        return command.seal(row.k_s2d, row.site, row.device, row.sid, row.th8)


@dataclass(frozen=True, slots=True)
class VerifiedOp:
    """An op that its device made in this session.

    `duplicate` is True where this transmission was seen before or is older than the window: it has to be
    answered again, and cannot have a new effect. `op.reject` is the code a body of the wrong shape must be
    answered with.
    """

    seq: int
    duplicate: bool
    op: Op
    op_hash: bytes
    op_bytes: bytes


def sid_of(frame: bytes) -> bytes:
    """Return the session id an op-frame claims, 4 bytes; not authenticated. Raises: Refusal."""
    parse = parse_short_mac0 if is_short_mac0(frame) else parse_mac0
    return parse(frame, SID_BYTES, OP_MAX_BYTES).identifier


class OpVerifier:
    """Opens op-frames and seals replies."""

    def __init__(self, clock: Clock, max_messages: int = SESSION_MESSAGES) -> None:
        self._clock = clock
        self._max_messages = max_messages

    def open(self, session: Session, frame: bytes) -> VerifiedOp:
        """Return the op in `frame`.

        `session` must be the one stored for the device of the authenticated connection. Raises: Refusal with
        UNKNOWN_SESSION, SESSION_EXPIRED or SESSION_SPENT (answer with the hint UNKNOWN_SESSION), or with
        TOO_LARGE, BAD_ENVELOPE, BAD_MAC, BAD_ENCODING, BAD_SHAPE (count it; no answer).
        """
        row = session.row
        parsed = parse_mac0(frame, SID_BYTES, OP_MAX_BYTES)
        if parsed.identifier != row.sid:
            raise Refusal(RefusalCode.UNKNOWN_SESSION, "the session is not this device's current one")
        verify_mac0(parsed, row.k_d2s, session.op_prefix)
        if self._clock.unix_time() >= row.expires_at:
            raise Refusal(RefusalCode.SESSION_EXPIRED, "the session is over")
        message = OpMessage.from_payload(parsed.payload)
        if message.seq > self._max_messages:
            raise Refusal(RefusalCode.SESSION_SPENT, "the session has carried all its messages")
        freshness = session.window.mark(message.seq)
        return VerifiedOp(
            message.seq,
            freshness is not Freshness.NEW,
            message.op,
            op_hash(message.op_bytes),
            message.op_bytes,
        )

    def open_telemetry(self, session: Session, frame: bytes) -> Telemetry | None:
        """Return what a telemetry-frame says, None where something newer was heard already.

        Its short tag moves nothing: the replay window of the ops stays as it is.
        Raises: Refusal as `open` does.
        """
        row = session.row
        parsed = parse_short_mac0(frame, SID_BYTES, OP_MAX_BYTES)
        if parsed.identifier != row.sid:
            raise Refusal(RefusalCode.UNKNOWN_SESSION, "the session is not this device's current one")
        verify_short_mac0(parsed, row.k_d2s, aad.op(row.site, row.device, row.sid, row.th8))
        if self._clock.unix_time() >= row.expires_at:
            raise Refusal(RefusalCode.SESSION_EXPIRED, "the session is over")
        seq, telemetry = Telemetry.from_payload(parsed.payload)
        if seq <= session.heard:
            return None
        session.heard = seq
        return telemetry

    def seal_reply(self, session: Session, reply: Reply) -> bytes:
        """Return the reply-frame."""
        return mac0(session.row.k_s2d, session.row.sid, reply.payload(), session.reply_prefix)


NEEDS_NEW_SESSION = frozenset(
    {RefusalCode.UNKNOWN_SESSION, RefusalCode.SESSION_EXPIRED, RefusalCode.SESSION_SPENT}
)
