"""A terminal made of nothing but keys: it speaks to the broker directly and says what a real one never would.

With a registered key it is a stolen or broken terminal, with another key a false one. Frames are made with
the server's own codecs and then bent; that the device's codecs agree with those is the vectors' business.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import TracebackType

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from bench import provision
from bench.boards.base import Identity
from bench.errors import CaseFailed, DeadlinePassed
from server.wire import aad
from server.wire.cose import mac0, mac_prefix, parse_mac0, verify_mac0
from server.wire.frames import Accept, Beacon, Hello, Hint, HintStatus
from server.wire.keyschedule import SessionKeys, derive, transcript_hash
from server.wire.ops import Line, Op, OpType, Reply, encode_op_message
from server.wire.rsa import RsaSigner, Signer, VerifyKey, load_public, oaep_encrypt

DEADLINE_S = 15.0
ATTEMPTS = 8
FIRMWARE = 0x000100
_HINT_HEAD = 0x83


class LoginRefused(Exception):
    """The broker's CONNACK said no; the text is its reason."""


class Impostor:
    """One MQTT connection under `who`'s name, and the session keys it may have negotiated."""

    def __init__(self, port: int, who: Identity, handshake: int = 0, signer: Signer | None = None) -> None:
        self.who = who
        self.signer: Signer = signer or RsaSigner(provision.private_key(who))
        self.handshake = handshake
        self.keys: SessionKeys | None = None
        self.sid = bytes(4)
        self.seq = 0
        self.menu_version = 0
        self._changed = threading.Condition()
        self._inbox: list[tuple[str, bytes]] = []
        self._connack: ReasonCode | None = None
        self._suback: list[ReasonCode] | None = None
        self._gone = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=who.device, clean_session=True)
        self._client.username_pw_set(who.device, who.password)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._port = port

    # ------------------------------------------------------------------ connection

    def __enter__(self) -> Impostor:
        self.connect()
        self.subscribe(f"d/{self.who.site}/{self.who.device}/#")
        self.subscribe(f"s/{self.who.site}/beacon")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Log in.

        Raises: LoginRefused.
        """
        self._connack = None
        self._client.connect("127.0.0.1", self._port, keepalive=30)
        self._client.loop_start()
        self._wait(lambda: self._connack is not None, "CONNACK")
        assert self._connack is not None
        if self._connack.is_failure:
            self.close()
            raise LoginRefused(str(self._connack))

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> bool:
        """Subscribe at QoS 1; False when the broker refuses the topic (SUBACK 0x80)."""
        self._suback = None
        self._client.subscribe(topic, qos=1)
        self._wait(lambda: self._suback is not None, f"SUBACK for {topic}")
        assert self._suback is not None
        return not any(code.is_failure for code in self._suback)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1 without waiting."""
        self._client.publish(topic, payload, qos=1)

    def say(self, kind: str, payload: bytes) -> None:
        """Publish below the own topic: kind is hello or op."""
        self.publish(f"o/{self.who.site}/{self.who.device}/{kind}", payload)

    @property
    def disconnected(self) -> bool:
        """True once the broker has closed the connection."""
        return self._gone

    def _on_connect(
        self,
        client: paho.Client,
        data: object,
        flags: object,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._changed:
            self._connack = code
            self._changed.notify_all()

    def _on_disconnect(
        self,
        client: paho.Client,
        data: object,
        flags: object,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _on_subscribe(
        self,
        client: paho.Client,
        data: object,
        mid: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        with self._changed:
            self._suback = codes
            self._changed.notify_all()

    def _on_message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self._inbox.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()

    def _wait(self, true: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        with self._changed:
            if not self._changed.wait_for(true, deadline_s):
                raise DeadlinePassed(f"impostor {self.who.device}: no {what} within {deadline_s:g} s")

    # ------------------------------------------------------------------ what it hears

    def mark(self) -> int:
        """Index of the next message: pass it as `since`."""
        with self._changed:
            return len(self._inbox)

    def heard(self, kind: str, since: int = 0) -> list[bytes]:
        """Payloads on d/../<kind> (hello, reply) so far."""
        topic = f"d/{self.who.site}/{self.who.device}/{kind}"
        with self._changed:
            return [payload for name, payload in self._inbox[since:] if name == topic]

    def await_heard(
        self, kind: str, since: int = 0, count: int = 1, deadline_s: float = DEADLINE_S
    ) -> list[bytes]:
        """Wait for `count` payloads on d/../<kind>.

        Raises: DeadlinePassed.
        """
        self._wait(lambda: len(self.heard(kind, since)) >= count, f"{count} messages on {kind}", deadline_s)
        return self.heard(kind, since)

    def beacon(self) -> bytes:
        """The site's newest beacon frame."""
        topic = f"s/{self.who.site}/beacon"

        def found() -> list[bytes]:
            return [payload for name, payload in self._inbox if name == topic]

        self._wait(lambda: bool(found()), "beacon")
        return found()[-1]

    # ------------------------------------------------------------------ handshake

    def hello(self, **changes: object) -> tuple[bytes, bytes, bytes]:
        """A Hello frame for the newest beacon; returns (frame, secret, nonce). `changes` overwrite fields."""
        beacon_frame = self.beacon()
        beacon, _ = Beacon.open(beacon_frame, VerifyKey(provision.root_spki(), 3072), self.who.site)
        self.menu_version = beacon.menu_version
        self.handshake += 1
        secret, nonce = os.urandom(32), os.urandom(16)
        label = aad.oaep_label(self.who.site, self.who.device)
        fields = {
            "device": self.who.device,
            "handshake": self.handshake,
            "nonce_device": nonce,
            "beacon_counter": beacon.counter,
            "beacon_hash": sha256(beacon_frame).digest(),
            "secret": oaep_encrypt(load_public(beacon.decrypt_spki, 2048), secret, label),
            "firmware": FIRMWARE,
            "menu_version": beacon.menu_version,
            "pending": 0,
            **changes,
        }
        return Hello(**fields).seal(self.signer, self.who.site), secret, nonce  # type: ignore[arg-type]

    def shake_hands(self) -> Accept:
        """Make a session, coming back later when the server asks for that.

        Raises: CaseFailed when the server refuses or does not answer.
        """
        for _ in range(ATTEMPTS):
            beacon_frame = self.beacon()
            frame, secret, nonce = self.hello()
            since = self.mark()
            self.say("hello", frame)
            answer = self.await_heard("hello", since)[0]
            if not is_hint(answer) or hint_status(answer) != HintStatus.RATE_LIMITED:
                break
            threading.Event().wait(Hint.decode(answer).arg / 1000)
        if is_hint(answer):
            raise CaseFailed(f"the server refused {self.who.device}'s Hello: {answer.hex()}")
        root = VerifyKey(provision.root_spki(), 3072)
        _, server_key = Beacon.open(beacon_frame, root, self.who.site)
        transcript = transcript_hash(beacon_frame, frame)
        keys = derive(secret, nonce, Accept.nonce_of(answer), self.who.site, self.who.device, transcript)
        accept = Accept.open(
            answer, server_key, keys.server_to_device, self.who.site, self.who.device, keys.th8
        )
        self.keys, self.sid, self.seq = keys, accept.sid, 0
        return accept

    # ------------------------------------------------------------------ ops

    def op(
        self,
        lines: Sequence[Line],
        total_minor: int,
        op_id: bytes | None = None,
        table: str | None = None,
    ) -> Op:
        """An order as a terminal would make it, under a fresh op id unless given."""
        who = self.who
        return Op(
            OpType.ORDER,
            op_id or os.urandom(12),
            table or who.table,
            tuple(lines),
            self.menu_version,
            total_minor,
        )

    def seal(self, op_bytes: bytes, site: str | None = None, device: str | None = None) -> bytes:
        """An op frame of the session, with the next sequence number; site and device may be lied about."""
        assert self.keys is not None
        self.seq += 1
        where = aad.op(site or self.who.site, device or self.who.device, self.sid, self.keys.th8)
        payload = encode_op_message(self.seq, op_bytes)
        return mac0(self.keys.device_to_server, self.sid, payload, mac_prefix(where))

    def op_aad(self) -> bytes:
        """The external AAD of this session's ops."""
        assert self.keys is not None
        return aad.op(self.who.site, self.who.device, self.sid, self.keys.th8)

    def order(self, op: Op, deadline_s: float = DEADLINE_S) -> Reply:
        """Send an op and wait for its verified answer."""
        since = self.mark()
        self.say("op", self.seal(op.encode()))
        return self.await_reply(op.op_id, since, deadline_s)

    def await_reply(self, op_id: bytes, since: int, deadline_s: float = DEADLINE_S) -> Reply:
        """Wait for the MAC-valid reply to one op.

        Raises: DeadlinePassed.
        """

        def find() -> Reply | None:
            replies = [self.open_reply(frame) for frame in self.heard("reply", since) if not is_hint(frame)]
            return next((reply for reply in replies if reply.op_id == op_id), None)

        self._wait(lambda: find() is not None, f"reply to {op_id.hex()}", deadline_s)
        reply = find()
        assert reply is not None
        return reply

    def open_reply(self, frame: bytes) -> Reply:
        """Verify a reply frame of the session.

        Raises: server.wire.errors.Refusal.
        """
        assert self.keys is not None
        parsed = parse_mac0(frame, len(self.sid), 256)
        where = aad.reply(self.who.site, self.who.device, self.sid, self.keys.th8)
        verify_mac0(parsed, self.keys.server_to_device, mac_prefix(where))
        return Reply.from_payload(parsed.payload)


def is_hint(frame: bytes) -> bool:
    """True for the unauthenticated three-element hint, False for a COSE frame."""
    return frame[:1] == bytes([_HINT_HEAD])


def hint_status(frame: bytes) -> int:
    """Status of a hint: 16 rate limited, 17 unknown session, 18 Hello refused."""
    return frame[2] if frame[1] == 0x18 else frame[1]
