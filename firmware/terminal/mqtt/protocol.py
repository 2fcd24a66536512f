# The MQTT 3.1.1 connection without any I/O: bytes in, bytes out, and what they mean. client.py moves the
# bytes, incoming.py reads them; this file owns what is sent: the QoS 1 window and the send buffer.
#
# Memory is bounded: one send buffer, and `window` sent messages kept until their PUBACK.
from terminal.compat import const
from terminal.mqtt import packets
from terminal.mqtt.errors import TOO_LARGE, Full, MqttError
from terminal.mqtt.incoming import CLOSED, CONNECTED, CONNECTING, Incoming

_RX_BYTES = const(2560)
_TX_BYTES = const(4096)
_RESERVE = const(1792)  # of the send buffer, for what is not PUBLISH: a receive buffer full of the shortest
# messages asks for 1,460 bytes of PUBACK


class Protocol(Incoming):
    # on_message(topic, payload memoryview): a message; the view is valid only during the call, PUBACK is
    #     queued when it returns.
    # handlers: topic bytes -> handler(payload), called instead of on_message; complete before any message.
    # on_fault(error): a handler failed. That costs its message and nothing else: whoever can send messages
    #     must not be able to stop the terminal.
    # on_subscribed(packet_id), or None.
    def __init__(
        self,
        on_message,
        on_subscribed=None,
        window=8,
        handlers=None,
        on_fault=None,
        rx_bytes=_RX_BYTES,
        tx_bytes=_TX_BYTES,
    ):
        super().__init__(on_message, on_subscribed, handlers, on_fault, rx_bytes)
        self.window = window
        # Sent and not yet acknowledged: packet id and PUBLISH packet, at the place that the id's low bits
        # name. A dict would do, but with keys that come and go MicroPython's gets slower and slower.
        places = 1
        while places < window:
            places *= 2
        self._ids = [0] * places
        self._packets = [None] * places
        self._place_mask = places - 1
        self.flying = 0
        self._packet_id = 0
        self._prefixes = {}  # length of a payload -> its packet's bytes up to there
        self._prefix_topic = None
        self._tx = bytearray(tx_bytes)
        self._tx_view = memoryview(self._tx)
        self._tx_limit = tx_bytes - _RESERVE
        self._reset()

    def _reset(self):
        self._forget_input()
        self._tx_head = self._tx_tail = 0
        self._again = []

    # ------------------------------------------------------------------ connection

    # Starts a connection: the send buffer then holds CONNECT.
    def open(self, client_id, user, password, keepalive_s, will=None, clean=False):
        self._reset()
        self.state = CONNECTING
        self._put(packets.connect(client_id, user, password, keepalive_s, will, clean))

    # The network connection is gone. Sent messages stay in `inflight` for resume().
    def lost(self):
        self.state = CLOSED
        self._reset()

    # Sends every unacknowledged message again, oldest first, with the DUP flag (section 4.4). What does not
    # fit into the send buffer follows as the network takes it; publish() is Full until then.
    def resume(self):
        newest = self._packet_id
        waiting = [packet_id for packet_id in self._ids if packet_id]
        self._again = sorted(waiting, key=lambda p: (p - newest - 1) & 0xFFFF)
        self._refill()

    def _refill(self):
        while self._again:
            packet_id = self._again[0]
            place = packet_id & self._place_mask
            if self._ids[place] == packet_id:  # not acknowledged meanwhile
                packet = self._packets[place]
                if self._tx_tail - self._tx_head + len(packet) > self._tx_limit:
                    return
                if not packet[0] & 8:
                    packet = self._packets[place] = bytes((packet[0] | 8,)) + packet[1:]
                self._put(packet)
            self._again.pop(0)

    # The packets that were sent and not yet acknowledged, in no order.
    def inflight(self):
        return [packet for packet in self._packets if packet is not None]

    def subscribe(self, filters):
        packet_id = self._ask()
        self._put(packets.subscribe(packet_id, filters))
        return packet_id

    def unsubscribe(self, filters):
        packet_id = self._ask()
        self._put(packets.unsubscribe(packet_id, filters))
        return packet_id

    def ping(self):
        self.ping_pending = True
        self._put(packets.PINGREQ)

    # ------------------------------------------------------------------ sending

    # -> (messages, bytes of packets) that publish() will take now.
    def room(self):
        if self.state != CONNECTED or self._again:
            return 0, 0
        return self.window - self.flying, self._tx_limit - self._tx_tail + self._tx_head

    # Queues one QoS 1 message and returns its packet id. topic, payload: bytes.
    # Raises Full when the window or the send buffer is full, or when there is no connection, and
    # MqttError(TOO_LARGE) for a message that would never fit.
    def publish(self, topic, payload, retain=False):
        flying = self.flying
        if flying >= self.window or self.state != CONNECTED or self._again:
            raise Full
        kept = self._packets
        mask = self._place_mask
        packet_id = self._packet_id + 1
        if packet_id > 65535 or kept[packet_id & mask] is not None or self._asked:
            packet_id = self._free_id()
        if topic is not self._prefix_topic or retain:
            prefix = self._prefix(topic, len(payload), retain)
        else:
            prefix = self._prefixes.get(len(payload))
            if prefix is None:
                prefix = self._prefix(topic, len(payload), False)
        prefix[-2] = packet_id >> 8
        prefix[-1] = packet_id & 255
        packet = prefix + payload
        size = len(packet)
        tail = self._tx_tail
        if tail + size > self._tx_limit:
            if size > self._tx_limit:
                raise MqttError(TOO_LARGE, f"a message of {size} bytes does not fit")
            self._make_room(size, self._tx_limit)
            tail = self._tx_tail
        # Through a view of exactly this length: assigning to a slice of _tx would move all that is behind it.
        self._tx_view[tail : tail + size][:] = packet
        self._tx_tail = tail + size
        kept[packet_id & mask] = packet
        self._ids[packet_id & mask] = packet_id
        self.flying = flying + 1
        self._packet_id = packet_id
        return packet_id

    # Ops of a few sizes follow each other on one topic: their packets begin alike but for the packet id.
    def _prefix(self, topic, payload_bytes, retain):
        prefix = bytearray(packets.publish_prefix(topic, payload_bytes, retain))
        if not retain:
            if topic is not self._prefix_topic or len(self._prefixes) > 15:
                self._prefixes.clear()
                self._prefix_topic = topic
            self._prefixes[payload_bytes] = prefix
        return prefix

    # The bytes to write to the network now; tell with sent() how many were taken.
    def to_send(self):
        return self._tx_view[self._tx_head : self._tx_tail]

    def pending_bytes(self):
        return self._tx_tail - self._tx_head

    def sent(self, count):
        self._tx_head += count
        if self._tx_head == self._tx_tail:
            self._tx_head = self._tx_tail = 0
            if self._again:
                self._refill()

    # The next packet id that nothing on its way uses, and whose place is free: publish() made sure there is
    # one.
    def _free_id(self):
        packet_id = self._packet_id
        while True:
            packet_id = packet_id % 65535 + 1
            if self._packets[packet_id & self._place_mask] is None and packet_id not in self._asked:
                return packet_id

    # The same for a packet that takes no place.
    def _ask(self):
        packet_id = self._packet_id
        while True:
            packet_id = packet_id % 65535 + 1
            if packet_id not in self._ids and packet_id not in self._asked:
                self._packet_id = packet_id
                self._asked[packet_id] = True
                return packet_id

    def _put(self, packet):
        if self._tx_tail + len(packet) > len(self._tx):
            self._make_room(len(packet), len(self._tx))
        end = self._tx_tail + len(packet)
        self._tx_view[self._tx_tail : end][:] = packet
        self._tx_tail = end

    def _make_room(self, size, limit):
        waiting = bytes(self.to_send())
        if len(waiting) + size > limit:
            raise Full
        self._tx_view[: len(waiting)][:] = waiting
        self._tx_head = 0
        self._tx_tail = len(waiting)
