# The MQTT client: keeps one connection to the broker alive and moves protocol.py's bytes.
#
# One task reads; everything else runs inside its turn or flushes on its own. A turn reads what the network
# has, hands every message to on_message, calls on_batch once, and sends all answers in one write. Nothing
# waits in a loop of sleeps: tasks wake for the socket or for a deadline.
import asyncio
import sys

from terminal.compat import sleep_ms, ticks_diff, ticks_ms
from terminal.mqtt.errors import (
    ACK_TIMEOUT,
    CLOSED,
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    LOST,
    PING_TIMEOUT,
    MqttError,
)
from terminal.mqtt.protocol import CONNECTING, Protocol

if sys.implementation.name == "micropython":
    from terminal.mqtt.transport_micropython import Transport
else:
    from terminal.mqtt.transport_cpython import Transport

_CONNECT_TIMEOUT_S = 10
_ROOM_BYTES = 1200  # an op-frame or a Hello of the largest size in its packet
_TURN_READS = 8  # then the others have their turn, however much there is to read
_HIGH_WATER_BYTES = 1024  # unsent answers above this stop the reading


class Client:
    # client_id, user, password, topics, will = (topic, payload): bytes. host: numeric address.
    # backoff: terminal.link.Backoff. topics are subscribed to at every connection, before anything is resent.
    # on_message(topic, payload view), handlers, on_fault: see Protocol.
    def __init__(
        self,
        host,
        port,
        client_id,
        user,
        password,
        backoff,
        on_message,
        topics,
        will=None,
        keepalive_s=30,
        window=16,
        handlers=None,
        on_fault=None,
    ):
        self.host = host
        self.port = port
        self.keepalive_s = keepalive_s
        self.online = False
        self.on_up = None  # on_up(session_present): subscribed and ready
        self.on_down = None  # on_down(code, text): was up, or an attempt failed
        self.on_batch = None  # on_batch(): all messages of this turn were handled
        self.connections = 0
        self.protocol = Protocol(on_message, self._subscribed, window, handlers, on_fault)
        # publish(topic, payload, retain=False) queues one QoS 1 message; flush() sends it, at the latest the
        # next turn does. Returns the packet id, raises Full (see Protocol.publish).
        self.publish = self.protocol.publish
        self._identity = (client_id, user, password)
        self._topics = topics
        self._will = will
        self._backoff = backoff
        self._transport = None
        self._reader = None
        self._draining = None
        self._failure = None
        self._heard = self._sent = False
        self._subscription = 0
        self._room = asyncio.Event()
        self._drained = asyncio.Event()

    # Returns once publish() has room.
    async def ready(self):
        while not (self.online and self.has_room()):
            self._room.clear()
            await self._room.wait()

    # True when publish() will take a message of up to _ROOM_BYTES.
    def has_room(self):
        messages, packet_bytes = self.protocol.room()
        return messages > 0 and packet_bytes >= _ROOM_BYTES

    def subscribe(self, filters):
        self.protocol.subscribe(filters)

    def unsubscribe(self, filters):
        self.protocol.unsubscribe(filters)

    # Sends what is queued, as far as the network takes it now; the rest follows by itself.
    def flush(self):
        if self._transport is None:
            return
        try:
            self._write()
        except OSError as error:
            self._abort(MqttError(LOST, str(error)))

    # Ends the connection from outside the reader, with a reason; run() connects again.
    def drop(self, code, text):
        self._abort(MqttError(code, text))

    # Keeps the terminal connected until it is cancelled. Cancelling closes the socket without DISCONNECT: the
    # broker then publishes the last will, which is what "off" looks like from outside.
    async def run(self):
        while True:
            started = ticks_ms()
            self._failure = None
            self._reader = asyncio.create_task(self._connection())
            try:
                await self._reader
                failure = self._failure
            except MqttError as error:
                failure = error
            except OSError as error:
                failure = MqttError(LOST, str(error))
            except asyncio.CancelledError:
                failure = self._failure
                if failure is None:
                    self._close()
                    raise
            was_online = self.online
            self._close()
            if was_online:
                self._backoff.lived(ticks_diff(ticks_ms(), started))
            if self.on_down is not None:
                self.on_down(failure.code, failure.text)
            await sleep_ms(self._backoff.next_ms())

    async def _connection(self):
        try:
            await asyncio.wait_for(self._open(), _CONNECT_TIMEOUT_S)
        except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no built-in of that name
            raise MqttError(CONNECT_TIMEOUT, f"no answer in {_CONNECT_TIMEOUT_S} s") from None
        keepalive = asyncio.create_task(self._keepalive())
        try:
            await self._read()
        finally:
            keepalive.cancel()

    # Up to CONNACK, with the subscriptions and the unacknowledged messages queued behind it.
    async def _open(self):
        protocol = self.protocol
        try:
            self._transport = Transport(self.host, self.port)
            await self._transport.writable()
            client_id, user, password = self._identity
            protocol.open(client_id, user, password, self.keepalive_s, self._will)
            self._write()
        except OSError as error:
            raise MqttError(CONNECT_FAILED, f"{self.host}:{self.port}: {error}") from None
        while protocol.state == CONNECTING:
            await self._fill()
        self._subscription = protocol.subscribe(self._topics)
        protocol.resume()
        self._write()

    async def _fill(self):
        await self._transport.readable()
        protocol = self.protocol
        count = self._transport.readinto(protocol.space())
        if count == 0:
            raise MqttError(CLOSED, "the broker closed the connection")
        if count:
            protocol.take(count)

    async def _read(self):
        protocol = self.protocol
        transport = self._transport
        readinto = transport.readinto
        while True:
            await transport.readable()
            for _ in range(_TURN_READS):
                count = readinto(protocol.space())
                if not count:
                    if count is None:
                        break
                    raise MqttError(CLOSED, "the broker closed the connection")
                protocol.take(count)
                if protocol.pending_bytes() > _HIGH_WATER_BYTES:
                    break
            self._heard = True
            if self.on_batch is not None:
                self.on_batch()
            if self._failure is not None:
                raise self._failure
            if protocol.pending_bytes():
                self._write()
            if not self._room.is_set():
                self._room.set()
            while protocol.pending_bytes() > _HIGH_WATER_BYTES:
                await self._drained.wait()

    def _write(self):
        protocol = self.protocol
        data = protocol.to_send()
        if not len(data) or self._draining is not None:
            return
        count = self._transport.write(data)
        self._sent = True
        if count:
            protocol.sent(count)
        if protocol.pending_bytes():
            self._drained.clear()
            self._draining = asyncio.create_task(self._drain())

    # Runs only while the network is slower than we are.
    async def _drain(self):
        protocol = self.protocol
        try:
            while protocol.pending_bytes():
                await self._transport.writable()
                count = self._transport.write(protocol.to_send())
                if count:
                    protocol.sent(count)
            self._draining = None
            self._drained.set()
            self._room.set()
        except OSError as error:
            self._abort(MqttError(LOST, str(error)))

    # A connection is dead when nothing was heard for a whole period after a PINGREQ, or when a message stayed
    # unacknowledged for two. A PINGREQ is sent when a period passed without traffic in both directions.
    async def _keepalive(self):
        protocol = self.protocol
        period_ms = self.keepalive_s * 1000 // 3
        recent = []
        while True:
            waiting = recent
            recent = protocol.inflight()
            self._heard = self._sent = False
            await sleep_ms(period_ms)
            if protocol.ping_pending and not self._heard:
                self._abort(MqttError(PING_TIMEOUT, f"nothing heard for {period_ms} ms"))
            elif any(packet in waiting for packet in protocol.inflight()):
                self._abort(MqttError(ACK_TIMEOUT, f"no PUBACK for {2 * period_ms} ms"))
            elif not (self._heard and self._sent):
                protocol.ping()
                self.flush()

    def _subscribed(self, packet_id):
        if packet_id == self._subscription and not self.online:
            self.online = True
            self.connections += 1
            if self.on_up is not None:
                self.on_up(self.protocol.session_present)

    # The reader cannot cancel itself: inside one of its turns the failure is met when the turn ends.
    def _abort(self, failure):
        if self._failure is None and self._reader is not None:
            self._failure = failure
            if asyncio.current_task() is not self._reader:
                self._reader.cancel()

    def _close(self):
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._reader = None
        self.online = False
        self.protocol.lost()
        self._drained.set()
