# The receiving half of the connection: finds packets in what the network brings and says what they mean.
#
# Memory is bounded: one receive buffer; a packet larger than that is read into a buffer of its own, made
# after its length was checked; one larger than _MAX_PACKET is skipped, acknowledged (it would come back for
# ever otherwise) and counted. What a broker must not send ends the connection with a code.
from terminal.compat import const
from terminal.mqtt.errors import FLOODED, MALFORMED, REFUSED, SUBSCRIBE_REFUSED, TOO_LARGE, MqttError
from terminal.mqtt.fast import put_puback, scan

_MAX_PACKET = const(8448)  # an update offer (8192) with its topic
_MAX_SKIP = const(262144)  # a longer "packet" is an attack: the connection ends
_MAX_TOPIC = const(128)

# States
CLOSED = const(0)
CONNECTING = const(1)  # CONNECT sent
CONNECTED = const(2)  # CONNACK 0 received

_FLOOD = "more messages than can be acknowledged"
_REFUSALS = (
    "",
    "protocol version",
    "client id",
    "broker unavailable",
    "user name or password",
    "not authorised",
)


class Incoming:
    # on_message, handlers, on_fault, on_subscribed: see Protocol, which owns the send buffer (_tx) that
    # PUBACKs go to, and the ids of what is on its way.
    def __init__(self, on_message, on_subscribed, handlers, on_fault, rx_bytes):
        self.on_message = on_message
        self.handlers = {} if handlers is None else handlers
        self.on_fault = on_fault
        self.on_subscribed = on_subscribed
        self.state = CLOSED
        self.session_present = False
        self.received = 0  # PUBLISH packets
        self.oversized = 0  # skipped
        self.strange_acks = 0  # PUBACK for a message that is not in flight
        self.ping_pending = False
        self._asked = {}  # packet id -> True for SUBSCRIBE and UNSUBSCRIBE
        self._topic = b"-"  # of the last message that had a handler
        self._handler = self._unhandled
        self._base = bytearray(rx_bytes)
        self._use(self._base)
        self._forget_input()

    def _use(self, buffer):
        self._rx = buffer
        self._view = memoryview(buffer)

    def _forget_input(self):
        self._use(self._base)
        self._head = self._tail = 0
        self._skip = 0
        self._asked.clear()
        self.ping_pending = False

    # Where the network may put the next bytes; never empty. Tell with take() how many came.
    def space(self):
        return self._view[self._tail :]

    # `count` more bytes are in the buffer: handles every complete packet. Raises MqttError when the
    # connection must end.
    def take(self, count):
        self._tail += count
        if self._skip:
            self._drop(0)
        self._parse()
        if self._head == self._tail:
            self._head = self._tail = 0
            if self._rx is not self._base:
                self._use(self._base)
        elif self._tail == len(self._rx) and self._head:
            rest = self._tail - self._head
            self._rx[:rest] = bytes(self._view[self._head : self._tail])
            self._head = 0
            self._tail = rest

    def _parse(self):
        rx = self._rx
        end = self._tail
        pos = self._head
        if self.state == CONNECTED:
            pos = self._head = self._parse_usual(pos, end)
        while end - pos > 1:
            head = rx[pos]
            size = rx[pos + 1]
            body = pos + 2
            if size > 127:
                size &= 127
                shift = 7
                while True:
                    if body == end:
                        self._head = pos
                        return
                    more = rx[body]
                    body += 1
                    size |= (more & 127) << shift
                    if more < 128:
                        break
                    shift += 7
                    if shift > 21:
                        raise MqttError(MALFORMED, "a length of more than four bytes")
                if not more:
                    raise MqttError(MALFORMED, "a length that is not in its shortest form")
            stop = body + size
            if stop > end:
                self._head = pos
                if self.state != CONNECTED and (head != 0x20 or size != 2):
                    raise MqttError(MALFORMED, "the first packet is not CONNACK")
                if stop - pos > len(rx):
                    self._large(pos, body, stop)
                return
            if head & 0xF0 == 0x30:
                self._on_publish(head, body, stop)
            else:
                self._on_other(head, body, size)
            pos = stop
            if self.state == CONNECTED:
                pos = self._parse_usual(pos, end)
            self._head = pos

    # The two packets an order brings, PUBACK and a QoS 1 PUBLISH to the same topic as before, at full speed.
    # Returns where the first other or incomplete packet begins.
    def _parse_usual(self, pos, end):
        rx = self._rx
        view = self._view
        topic = self._topic
        ids = self._ids
        mask = self._place_mask
        while True:
            found = scan(rx, pos, end, topic)
            if not found:
                return pos
            if found < 65536:
                place = found & mask
                if ids[place] == found:
                    ids[place] = 0
                    self._packets[place] = None
                    self.flying -= 1
                else:
                    self.strange_acks += 1
                pos += 4
                continue
            pos = found & 16383
            found >>= 14
            self.received += 1
            try:
                self._handler(view[found:pos])
            except Exception as error:  # noqa: BLE001 - whatever it was, it cost one message and is told
                self.on_fault(error)
            ack_end = put_puback(self._tx, self._tx_tail, rx, found - 2)
            if not ack_end:
                raise MqttError(FLOODED, _FLOOD)
            self._tx_tail = ack_end

    # at: where the packet id stands in the receive buffer.
    def _acknowledge(self, at):
        end = put_puback(self._tx, self._tx_tail, self._rx, at)
        if not end:
            raise MqttError(FLOODED, _FLOOD)
        self._tx_tail = end

    def _unhandled(self, payload):
        self.on_message(self._topic, payload)

    def _hand_over(self, topic, payload):
        self.received += 1
        try:
            handler = self.handlers.get(topic)
            if handler is None:
                self.on_message(topic, payload)
            else:
                self._topic = topic
                self._handler = handler
                handler(payload)
        except Exception as error:  # noqa: BLE001 - as above
            self.on_fault(error)

    def _on_publish(self, head, pos, stop):
        rx = self._rx
        qos1 = head & 2
        if self.state != CONNECTED or head & 4:
            raise MqttError(MALFORMED, "PUBLISH before CONNACK or with QoS 2")
        if stop - pos < 2:
            raise MqttError(MALFORMED, "PUBLISH without a topic")
        start = pos + 2
        topic_end = start + (rx[pos] << 8 | rx[pos + 1])
        payload = topic_end + 2 if qos1 else topic_end
        if payload > stop or topic_end == start or topic_end - start > _MAX_TOPIC:
            raise MqttError(MALFORMED, "PUBLISH with a bad topic")
        if qos1 and not rx[topic_end] and not rx[topic_end + 1]:
            raise MqttError(MALFORMED, "packet id 0")
        self._hand_over(bytes(self._view[start:topic_end]), self._view[payload:stop])
        if qos1:
            self._acknowledge(topic_end)

    def _on_other(self, head, pos, size):
        rx = self._rx
        if head == 0x40 and size == 2 and self.state == CONNECTED:
            self.strange_acks += 1  # packet id 0: scan() takes all others
        elif head == 0xD0 and size == 0:  # PINGRESP
            self.ping_pending = False
        elif head == 0x20 and size == 2 and self.state == CONNECTING:  # CONNACK
            code = rx[pos + 1]
            if rx[pos] > 1:
                raise MqttError(MALFORMED, "CONNACK flags")
            if code:
                raise MqttError(REFUSED, _REFUSALS[code] if code < len(_REFUSALS) else f"code {code}")
            self.session_present = rx[pos] == 1
            self.state = CONNECTED
        elif head == 0x90 and size > 2:  # SUBACK
            packet_id = self._answered(pos)
            for i in range(pos + 2, pos + size):
                if rx[i] > 2:
                    raise MqttError(SUBSCRIBE_REFUSED, "the broker refused a subscription")
            if self.on_subscribed is not None:
                self.on_subscribed(packet_id)
        elif head == 0xB0 and size == 2:  # UNSUBACK
            self._answered(pos)
        else:
            raise MqttError(MALFORMED, f"packet type {head:#04x} of {size} bytes")

    def _answered(self, pos):
        packet_id = self._rx[pos] << 8 | self._rx[pos + 1]
        if self._asked.pop(packet_id, None) is None:
            raise MqttError(MALFORMED, "an answer to nothing that was asked")
        return packet_id

    # ------------------------------------------------------------------ packets larger than the buffer

    def _large(self, pos, body, stop):
        size = stop - pos
        if self._rx[pos] & 0xF0 != 0x30:
            raise MqttError(MALFORMED, f"a control packet of {size} bytes")
        if size > _MAX_SKIP:
            raise MqttError(TOO_LARGE, f"a message of {size} bytes")
        if self.state != CONNECTED:
            raise MqttError(MALFORMED, "PUBLISH before CONNACK")
        if size <= _MAX_PACKET:
            try:
                buffer = bytearray(size)
            except MemoryError:
                buffer = None
            if buffer is not None:
                have = self._tail - pos
                buffer[:have] = bytes(self._view[pos : self._tail])
                self._use(buffer)
                self._head = 0
                self._tail = have
                return
        self._refuse(pos, body, size)

    # Skips a message that will not be read, once enough of it is here to acknowledge it.
    def _refuse(self, pos, body, size):
        rx = self._rx
        have = self._tail
        if have - body < 2:
            return
        topic_end = body + 2 + (rx[body] << 8 | rx[body + 1])
        if topic_end - body > _MAX_TOPIC + 2:
            raise MqttError(MALFORMED, "PUBLISH with a bad topic")
        if have < topic_end + 2:
            return
        if rx[pos] & 4:
            raise MqttError(MALFORMED, "PUBLISH with QoS 2")
        if rx[pos] & 2:
            self._acknowledge(topic_end)
        self.oversized += 1
        self._skip = size
        self._drop(pos)

    def _drop(self, start):
        have = self._tail - start
        count = min(have, self._skip)
        self._skip -= count
        rest = have - count
        if rest:
            self._rx[:rest] = bytes(self._view[start + count : self._tail])
        self._head = 0
        self._tail = rest
