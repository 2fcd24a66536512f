"""Promises that are checked while they are made: no reply and no PUBACK before its commit is readable.

And after every power failure: what was ever told to a terminal is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.history.events import Replied, Reply
from bench.sim.dbapi import SimConnection
from server.transport.acl import OPS
from server.wire.cose import is_short_mac0, parse_mac0
from server.wire.errors import Refusal
from server.wire.frames import SID_BYTES
from server.wire.ops import OP_MAX_BYTES, REPLY_MAX_BYTES, OpMessage, Status
from server.wire.ops import Reply as WireReply

if TYPE_CHECKING:
    from bench.sim.server import SimServer
    from bench.sim.world import World

_ANSWER = (
    "SELECT status, arg, order_number, total_minor, lsn FROM answer "
    "WHERE site = ? AND device = ? AND op_id = ?"
)
_NOT_STORED = {Status.RATE_LIMITED}


class Watch:
    """Looks over the shoulder of the server's broker."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._server: SimServer | None = None
        self._reader: SimConnection | None = None
        self._told: dict[tuple[str, bytes], Reply] = {}

    def new_server(self, server: SimServer) -> None:
        """Another start of the server."""
        self._server = server
        self._reader = None

    def server_is_up(self, server: SimServer) -> None:
        """After a power failure: nothing that was told is gone."""
        if self._server is not server or not server.machine.alive:
            return
        for (device, op_id), reply in self._told.items():
            stored = self._stored(device, op_id)
            if stored != reply:
                self._world.journal.violated(
                    "LOST_CONFIRMED", f"{device} {op_id.hex()}: told {reply}, after the restart {stored}"
                )

    def frame_arrived(
        self, device: str, kind: str, payload: bytes, done: Callable[[bool], None]
    ) -> Callable[[bool], None]:
        """The broker takes a frame; what it later says about it passes through here."""
        if kind != OPS or is_short_mac0(payload) or self._server is None or self._server.server is None:
            return done
        server = self._server
        totals = self._server.server.observations.totals
        refused = totals.total() - totals["storage_error"]

        def judged(handled: bool) -> None:
            if handled and server.machine.alive and totals.total() - totals["storage_error"] == refused:
                self._acknowledged(device, payload)
            done(handled)

        return judged

    def _acknowledged(self, device: str, frame: bytes) -> None:
        """PUBACK without a counted refusal: the answer must be stored."""
        try:
            payload = parse_mac0(frame, SID_BYTES, OP_MAX_BYTES).payload
            op = OpMessage.from_payload(payload).op
        except Refusal as refusal:
            self._world.journal.violated(
                "ACK_UNREAD", f"{device}: an unreadable frame was taken ({refusal.code})"
            )
            return
        if self._stored(device, op.op_id) is None:
            self._world.journal.violated("ACK_BEFORE_COMMIT", f"{device} {op.op_id.hex()}")

    def reply_leaves(self, device: str, frame: bytes) -> None:
        """A frame is handed to the broker for a terminal's reply topic."""
        try:
            payload = parse_mac0(frame, SID_BYTES, REPLY_MAX_BYTES).payload
            said = WireReply.from_payload(payload)
        except Refusal:
            return  # a hint
        if said.status in _NOT_STORED:
            return
        reply = Reply(said.status, said.arg, said.order_number, said.total_minor, said.lsn)
        if reply.lsn == 0:
            return  # BODY_MISMATCH: answered, never stored
        world = self._world
        full = replace(reply, chain=said.chain)
        world.replied.append(Replied(world.loop.time(), device, said.op_id, full, by_device=False))
        key = (device, said.op_id)
        if self._told.setdefault(key, reply) != reply:
            world.journal.violated(
                "ANSWER_CHANGED", f"{device} {said.op_id.hex()}: {self._told[key]}, now {reply}"
            )
        if self._stored(device, said.op_id) != reply:
            world.journal.violated("REPLY_BEFORE_COMMIT", f"{device} {said.op_id.hex()}: {reply}")

    def _stored(self, device: str, op_id: bytes) -> Reply | None:
        """The answer as another connection reads it."""
        server = self._server
        if server is None or not server.machine.alive:
            return None
        row = self.reader(server).execute(_ANSWER, (self._world.site, device, op_id)).fetchone()
        return None if row is None else Reply(*row)

    def reader(self, server: SimServer) -> SimConnection:
        """A connection that sees what is committed on the server that is up."""
        if self._reader is None:
            self._reader = server.reader()
        return self._reader
