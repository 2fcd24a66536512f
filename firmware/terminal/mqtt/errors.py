# Why an MQTT connection ended. The code is for machines and counters, the text is for people.


class MqttError(Exception):
    # code: one of the constants below; text: what happened.
    def __init__(self, code, text=""):
        super().__init__(code, text)
        self.code = code
        self.text = text


class Full(Exception):
    # The send window or the send buffer has no room: wait with Client.ready(), or try at the next PUBACK.
    pass


CONNECT_FAILED = "CONNECT_FAILED"  # no TCP connection to the broker
CONNECT_TIMEOUT = "CONNECT_TIMEOUT"  # no CONNACK in time
REFUSED = "REFUSED"  # CONNACK with a return code other than 0
SUBSCRIBE_REFUSED = "SUBSCRIBE_REFUSED"  # SUBACK said 0x80
CLOSED = "CLOSED"  # the broker closed the connection
LOST = "LOST"  # the network reported an error
PING_TIMEOUT = "PING_TIMEOUT"  # nothing was heard after a PINGREQ
ACK_TIMEOUT = "ACK_TIMEOUT"  # a QoS 1 message stayed without its PUBACK
MALFORMED = "MALFORMED"  # bytes that are not MQTT 3.1.1, or a packet a broker must not send
FLOODED = "FLOODED"  # more messages at once than can be acknowledged
TOO_LARGE = "TOO_LARGE"  # a packet too long to even skip
STOPPED = "STOPPED"  # stop() was called
