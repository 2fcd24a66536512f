"""One terminal's connection to the embedded broker: from CONNECT to the last byte.

Every way a peer can misbehave ends in a counted refusal and a closed connection, never in an exception that
reaches the loop. Writes are gathered and leave once per loop turn; a peer that does not read is dropped
when its buffer is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from server.transport import connect as handshake
from server.transport.acl import STATE, may_subscribe, own_topic
from server.transport.auth import LoginsBusy
from server.transport.mqtt import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP_PACKET,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    PacketSplitter,
    ProtocolViolation,
    Publish,
    puback_packet,
    read_packet_id,
    read_publish,
    valid_filter,
)
from server.transport.session import ClientSession

if TYPE_CHECKING:
    from server.transport.broker import DeviceBroker

READ_BYTES = 65_536
CONNECT_TIMEOUT_S = 10.0
MAX_UNACKED = 512
MAX_WRITE_BUFFER_BYTES = 2_000_000
MQTT_3_1_1 = 4


class Connection:
    """A TCP connection and, once authenticated, the session it serves."""

    def __init__(
        self, broker: DeviceBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._broker = broker
        self._reader = reader
        self._writer = writer
        self._splitter = PacketSplitter(broker.max_packet_bytes)
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._greeted = False
        self._unacked = 0
        self._room = asyncio.Event()
        self._room.set()
        self._will: handshake.Will | None = None
        self.device = ""
        self.session: ClientSession | None = None
        self.keep_alive_s = 0
        self.last_heard = self._loop.time()
        self.closed = False

    async def run(self) -> None:
        """Serve the connection until it ends, whatever ends it."""
        try:
            first = await asyncio.wait_for(self._begin(), CONNECT_TIMEOUT_S)
            if first is not None:
                await self._serve(first)
        except ProtocolViolation as violation:
            self._broker.refuse(self.device, violation.code)
        except TimeoutError:
            self._broker.refuse("", "mqtt_connect_timeout")
        except OSError:
            pass  # the peer went away: for MQTT that is an ordinary end, and the will below says so
        finally:
            self.abort()
            self._broker.ended(self, self._will)

    async def _begin(self) -> list[tuple[int, bytes]] | None:
        """Take CONNECT; returns the packets that came right behind it, or None when refused."""
        packets: list[tuple[int, bytes]] = []
        while not packets:
            data = await self._reader.read(READ_BYTES)
            if not data:
                return None
            if not self._greeted and data[0] != CONNECT << 4:
                raise ProtocolViolation("mqtt_no_connect")  # do not wait for the length it seems to name
            self._greeted = True
            packets = self._splitter.feed(data)
        wish = await handshake.read_connect(*packets[0])
        code = await self._judge(wish)
        if code != handshake.ACCEPTED:
            self.write(handshake.connack_packet(code))
            self._flush()
            return None
        self.device, self.keep_alive_s, self._will = wish.client_id, wish.keep_alive_s, wish.will
        session, present = self._broker.attach(self, wish.clean_session)
        self.session = session
        self.write(handshake.connack_packet(handshake.ACCEPTED, session_present=present))
        self.write(session.resume())
        if present:
            self._broker.send_missed(session)
        return packets[1:]

    async def _judge(self, wish: handshake.Connect) -> int:
        broker = self._broker
        if wish.level != MQTT_3_1_1:
            broker.refuse("", "mqtt_unsupported_version")
            return handshake.BAD_PROTOCOL
        if not wish.client_id or wish.client_id != wish.username:
            broker.refuse("", "mqtt_client_is_not_user")
            return handshake.BAD_IDENTIFIER
        try:
            welcome = await broker.authenticate(wish.client_id, wish.password)
        except LoginsBusy:
            broker.refuse("", "mqtt_logins_busy")
            return handshake.UNAVAILABLE
        if not welcome:
            broker.refuse("", "mqtt_bad_login")
            return handshake.NOT_AUTHORISED
        if wish.will is not None and own_topic(broker.site, wish.client_id, wish.will.topic) != STATE:
            broker.refuse(wish.client_id, "acl_will")
            return handshake.NOT_AUTHORISED
        return handshake.ACCEPTED

    async def _serve(self, packets: list[tuple[int, bytes]]) -> None:
        while not self.closed:
            for first, body in packets:
                if not self._hot(first, body):
                    await self._rare(first, body)
                if self.closed:
                    return
            await self._room.wait()
            data = await self._reader.read(READ_BYTES)
            if not data:
                return
            self.last_heard = self._loop.time()
            packets = self._splitter.feed(data)

    def _hot(self, first: int, body: bytes) -> bool:
        """Handle the two packets every order brings, without a coroutine; False for all others."""
        kind = first >> 4
        if kind == PUBLISH:
            self._publish(read_publish(first, body))
        elif kind == PUBACK and self.session is not None:
            self.write(self.session.acknowledged(read_packet_id(body)))
        else:
            return False
        return True

    async def _rare(self, first: int, body: bytes) -> None:
        kind = first >> 4
        session = self.session
        assert session is not None
        if kind == PINGREQ:
            self.write(PINGRESP_PACKET)
        elif kind == SUBSCRIBE:
            await self._subscribe(session, first, body)
        elif kind == UNSUBSCRIBE:
            packet_id, filters = await handshake.read_unsubscribe(first, body)
            for topic_filter in filters:
                session.unsubscribe(topic_filter)
            self.write(handshake.unsuback_packet(packet_id))
        elif kind == DISCONNECT:
            self._will = None
            self.closed = True
        else:
            raise ProtocolViolation("mqtt_second_connect" if kind == CONNECT else "mqtt_unexpected_packet")

    def _publish(self, message: Publish) -> None:
        if message.qos == 2:
            raise ProtocolViolation("mqtt_qos2")
        kind = own_topic(self._broker.site, self.device, message.topic)
        if kind is None:
            self._broker.refuse(self.device, "acl_publish")
            if message.qos:
                self.write(puback_packet(message.packet_id))
            return
        if message.qos == 0:
            self._broker.ingest(self.device, kind, message.payload, _no_answer)
            return
        self._unacked += 1
        if self._unacked >= MAX_UNACKED:
            self._room.clear()
        self._broker.ingest(self.device, kind, message.payload, self._acknowledger(message.packet_id))

    def _acknowledger(self, packet_id: int) -> Callable[[bool], None]:
        def done(handled: bool) -> None:
            self._unacked -= 1
            if self._unacked < MAX_UNACKED:
                self._room.set()
            if handled:
                self.write(puback_packet(packet_id))
            else:
                self.abort()  # nothing was stored: no PUBACK, the terminal comes back and sends it again

        return done

    async def _subscribe(self, session: ClientSession, first: int, body: bytes) -> None:
        packet_id, wishes = await handshake.read_subscribe(first, body)
        codes: list[int] = []
        granted: list[str] = []
        for topic_filter, qos in wishes:
            if valid_filter(topic_filter) and may_subscribe(self._broker.site, self.device, topic_filter):
                session.subscribe(topic_filter, min(qos, 1))
                granted.append(topic_filter)
                codes.append(min(qos, 1))
            else:
                self._broker.refuse(self.device, "acl_subscribe")
                codes.append(0x80)
        self.write(handshake.suback_packet(packet_id, codes))
        for topic_filter in granted:
            self._broker.send_retained(session, topic_filter)

    def write(self, data: bytes) -> None:
        """Send bytes with everything else that is written in this turn of the loop."""
        if not data or self.closed:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if not self._out or self._writer.is_closing():
            self._out.clear()
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_WRITE_BUFFER_BYTES:
            self._broker.refuse(self.device, "mqtt_slow_consumer")
            self.abort(dead=True)

    def abort(self, *, dead: bool = False) -> None:
        """Write what is gathered, then close; a ``dead`` peer is not waited for."""
        if dead:
            self._writer.transport.abort()
        elif not self._writer.is_closing():
            self._flush()
            self._writer.close()
        self.closed = True
        self._room.set()


def _no_answer(_handled: bool) -> None:
    """A QoS 0 message has no acknowledgement."""
