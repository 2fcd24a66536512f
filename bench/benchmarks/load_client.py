"""A software terminal for load and server tests: raw MQTT 3.1.1 and real Seal/1 frames, no user interface.

It is the cheapest honest peer of the server: it registers with a password, believes only a certified
beacon, shakes hands with RSA, seals each op with the session key and accepts only MAC-valid replies. It is
not the device's implementation, which has its own suites; it shares the server's codecs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.wire import aad
from server.wire.cose import mac0, mac_prefix, parse_mac0, verify_mac0
from server.wire.errors import Refusal
from server.wire.frames import SID_BYTES, Accept, Beacon, Hello, Hint
from server.wire.keyschedule import NONCE_BYTES, SECRET_BYTES, SessionKeys, derive, transcript_hash
from server.wire.ops import REPLY_MAX_BYTES, Line, Op, OpType, Reply, encode_op_message
from server.wire.rsa import RsaSigner, VerifyKey, load_public, oaep_encrypt

CONNECT_DEADLINE_S = 10.0


class LinkError(Exception):
    """The server turned the terminal away or the connection ended."""


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(first: int, body: bytes) -> bytes:
    length, head = len(body), bytearray((first,))
    while True:
        length, digit = length >> 7, length & 0x7F
        head.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


class MqttLink(asyncio.Protocol):
    """One MQTT 3.1.1 connection: QoS 1 out, messages in through ``on_message(topic, payload, retain)``."""

    def __init__(self, client_id: str, password: str, on_message: Callable[[str, bytes, bool], None]) -> None:
        self.client_id = client_id
        self._password = password
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._packet_id = 0
        self._waiting: dict[tuple[int, int], asyncio.Future[int]] = {}
        self.session_present = False
        self.pubacks = 0
        self.unacked: set[int] = set()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    async def open(self, host: str, port: int, *, clean: bool = True, keep_alive_s: int = 60) -> None:
        """Connect and log in. Raises: LinkError, OSError."""
        await self._loop.create_connection(lambda: self, host, port)
        flags = 0xC0 | (2 if clean else 0)
        body = _text("MQTT") + bytes((4, flags)) + keep_alive_s.to_bytes(2, "big")
        body += _text(self.client_id) + _text(self.client_id) + _text(self._password)
        code = await self._ask(2, 0, _packet(0x10, body))
        if code != 0:
            raise LinkError(f"CONNACK {code}")

    async def subscribe(self, topic_filter: str, qos: int = 1) -> int:
        """Subscribe and return the granted QoS, 0x80 when refused."""
        ident = self._next_id()
        body = ident.to_bytes(2, "big") + _text(topic_filter) + bytes((qos,))
        return await self._ask(9, ident, _packet(0x82, body))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> int:
        """Publish and return the packet id (0 at QoS 0)."""
        ident = self._next_id() if qos else 0
        if qos:
            self.unacked.add(ident)
        self._write(
            _packet(0x30 | qos << 1, _text(topic) + (ident.to_bytes(2, "big") if qos else b"") + payload)
        )
        return ident

    def close(self) -> None:
        """Say goodbye."""
        self._write(b"\xe0\x00")
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Vanish."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is over."""
        if not self.closed.done():
            self.closed.set_result(None)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkError("the connection ended"))
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 2:
            length, shift, at = 0, 0, 1
            while True:
                if at >= len(buffer):
                    return
                byte = buffer[at]
                at += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            if len(buffer) < at + length:
                return
            first, body = buffer[0], bytes(buffer[at : at + length])
            del buffer[: at + length]
            self._take(first, body)

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 3:
            end = 2 + int.from_bytes(body[:2], "big")
            qos = first >> 1 & 3
            if qos:
                self._write(b"\x40\x02" + body[end : end + 2])
            self._on_message(body[2:end].decode(), body[end + (2 if qos else 0) :], bool(first & 1))
        elif kind == 4:
            self.pubacks += 1
            self.unacked.discard(int.from_bytes(body, "big"))
        elif kind == 2:
            self.session_present = bool(body[0] & 1)
            self._answer(2, 0, body[1])
        elif kind == 9:
            self._answer(9, int.from_bytes(body[:2], "big"), body[2])

    async def _ask(self, kind: int, ident: int, packet: bytes) -> int:
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting[kind, ident] = future
        self._write(packet)
        return await asyncio.wait_for(future, CONNECT_DEADLINE_S)

    def _answer(self, kind: int, ident: int, value: int) -> None:
        future = self._waiting.pop((kind, ident), None)
        if future is not None and not future.done():
            future.set_result(value)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id


class SoftTerminal:
    """A registered terminal: ``connect``, ``hello``, then ``send`` orders and read ``on_reply`` or ``order``.

    ``key`` is its RSA-2048 private key, ``root_spki`` the root it trusts.
    """

    def __init__(
        self, site: str, device: str, table: str, password: str, key: RSAPrivateKey, root_spki: bytes
    ) -> None:
        self.site, self.device, self.table = site, device, table
        self._password = password
        self._signer = RsaSigner(key)
        self._root = VerifyKey(root_spki, 3072)
        self._beacon: tuple[bytes, Beacon, VerifyKey] | None = None
        self._beacon_seen = asyncio.Event()
        self._hello_answer: asyncio.Future[bytes] | None = None
        self._keys: SessionKeys | None = None
        self._running = 0
        self._op_prefix = self._reply_prefix = b""
        self._waiting: dict[bytes, asyncio.Future[Reply]] = {}
        self.sid = b""
        self.seq = 0
        self.handshake = 0
        self.accept: Accept | None = None
        self.hello_frame = b""
        self.menu_version = 0
        self.link: MqttLink | None = None
        self.hints: list[Hint] = []
        self.bad_replies = 0
        self.retained: dict[str, bytes] = {}
        self.on_reply: Callable[[Reply], None] | None = None
        self.on_other: Callable[[str, bytes], None] | None = None

    @classmethod
    def from_pem(
        cls, site: str, device: str, table: str, password: str, pem: Path, root_spki: bytes
    ) -> SoftTerminal:
        """A terminal with the key in a PEM file."""
        key = load_pem_private_key(pem.read_bytes(), None)
        assert isinstance(key, RSAPrivateKey)
        return cls(site, device, table, password, key, root_spki)

    @property
    def beacon(self) -> Beacon | None:
        """The newest certified beacon."""
        return self._beacon[1] if self._beacon is not None else None

    @property
    def server_key(self) -> VerifyKey | None:
        """The server-sign key that beacon certifies."""
        return self._beacon[2] if self._beacon is not None else None

    async def connect(self, host: str, port: int, *, clean: bool = True, keep_alive_s: int = 60) -> None:
        """Log in and subscribe. Raises: LinkError, OSError."""
        self.vanish()
        self.link = MqttLink(self.device, self._password, self._message)
        await self.link.open(host, port, clean=clean, keep_alive_s=keep_alive_s)
        for topic_filter in (f"d/{self.site}/{self.device}/#", f"s/{self.site}/#"):
            granted = await self.link.subscribe(topic_filter)
            if granted > 1:
                raise LinkError(f"{topic_filter} was refused")

    def vanish(self) -> None:
        """Drop the connection, if there is one, without a word."""
        if self.link is not None:
            self.link.abort()
            self.link = None

    async def hello(self, deadline_s: float = 10.0) -> Accept:
        """Wait for a beacon, shake hands and check the Accept. Raises: LinkError when refused, Refusal,
        TimeoutError.
        """
        await asyncio.wait_for(self._beacon_seen.wait(), deadline_s)
        assert self._beacon is not None
        assert self.link is not None
        beacon_frame, beacon, server = self._beacon
        self.handshake += 1
        nonce, secret = os.urandom(NONCE_BYTES), os.urandom(SECRET_BYTES)
        hello = Hello(
            device=self.device,
            handshake=self.handshake,
            nonce_device=nonce,
            beacon_counter=beacon.counter,
            beacon_hash=sha256(beacon_frame).digest(),
            secret=oaep_encrypt(
                load_public(beacon.decrypt_spki, 2048), secret, aad.oaep_label(self.site, self.device)
            ),
            firmware=0x10000,
            menu_version=beacon.menu_version,
            pending=0,
        )
        self.hello_frame = hello.seal(self._signer, self.site)
        answer = await self.ask_hello(self.hello_frame, deadline_s)
        try:
            raise LinkError(f"hint {Hint.decode(answer)}")
        except Refusal:
            pass  # not a hint: an Accept, judged below
        transcript = transcript_hash(beacon_frame, self.hello_frame)
        keys = derive(secret, nonce, Accept.nonce_of(answer), self.site, self.device, transcript)
        accept = Accept.open(answer, server, keys.server_to_device, self.site, self.device, keys.th8)
        self.accept = accept
        self.take_session(accept.sid, keys, accept.menu_version)
        return accept

    def take_session(self, sid: bytes, keys: SessionKeys, menu_version: int) -> None:
        """Seal and open with these keys from now on."""
        self._keys, self.sid, self.seq, self.menu_version = keys, sid, 0, menu_version
        self._op_prefix = mac_prefix(aad.op(self.site, self.device, sid, keys.th8))
        self._reply_prefix = mac_prefix(aad.reply(self.site, self.device, sid, keys.th8))

    async def ask_hello(self, frame: bytes, deadline_s: float = 10.0) -> bytes:
        """Send some Hello bytes and return whatever comes back on the hello topic."""
        assert self.link is not None
        self._hello_answer = asyncio.get_running_loop().create_future()
        self.link.publish(f"o/{self.site}/{self.device}/hello", frame)
        return await asyncio.wait_for(self._hello_answer, deadline_s)

    def new_op_id(self) -> bytes:
        """A fresh op id."""
        self._running += 1
        return (1).to_bytes(4, "big") + self._running.to_bytes(4, "big") + os.urandom(4)

    def make_op(self, lines: tuple[Line, ...], total_minor: int, *, op_id: bytes | None = None) -> Op:
        """An order for the terminal's own table and menu version."""
        return Op(OpType.ORDER, op_id or self.new_op_id(), self.table, lines, self.menu_version, total_minor)

    def seal(self, op_bytes: bytes) -> bytes:
        """The op-frame of the next transmission."""
        assert self._keys is not None
        self.seq += 1
        return mac0(
            self._keys.device_to_server, self.sid, encode_op_message(self.seq, op_bytes), self._op_prefix
        )

    def publish_op(self, frame: bytes) -> None:
        """Send an op-frame."""
        assert self.link is not None
        self.link.publish(f"o/{self.site}/{self.device}/op", frame)

    def send(self, op: Op) -> None:
        """Seal and send an op once."""
        self.publish_op(self.seal(op.encode()))

    async def order(self, op: Op, deadline_s: float = 10.0) -> Reply:
        """Send an op once and wait for its reply. Raises: TimeoutError."""
        return await self.ask_op(op.op_id, self.seal(op.encode()), deadline_s)

    async def ask_op(self, op_id: bytes, frame: bytes, deadline_s: float = 10.0) -> Reply:
        """Send some op-frame and wait for the reply to ``op_id``. Raises: TimeoutError."""
        future = self._waiting[op_id] = asyncio.get_running_loop().create_future()
        self.publish_op(frame)
        try:
            return await asyncio.wait_for(future, deadline_s)
        finally:
            self._waiting.pop(op_id, None)

    def _message(self, topic: str, payload: bytes, retain: bool) -> None:
        if topic == f"d/{self.site}/{self.device}/reply":
            self.take_reply(payload)
        elif topic == f"d/{self.site}/{self.device}/hello":
            if self._hello_answer is not None and not self._hello_answer.done():
                self._hello_answer.set_result(payload)
        elif topic == f"s/{self.site}/beacon":
            beacon, server = Beacon.open(payload, self._root, self.site)
            self._beacon = (payload, beacon, server)
            self._beacon_seen.set()
        elif self.on_other is not None and topic.startswith("d/"):
            self.on_other(topic, payload)
        if topic.startswith("s/"):
            self.retained[topic] = payload

    def open_reply(self, frame: bytes) -> Reply:
        """The reply in a frame sealed for this session, however it came. Raises: Refusal."""
        if self._keys is None:
            raise Refusal("no_session")
        parsed = parse_mac0(frame, SID_BYTES, REPLY_MAX_BYTES)
        verify_mac0(parsed, self._keys.server_to_device, self._reply_prefix)
        return Reply.from_payload(parsed.payload)

    def take_reply(self, frame: bytes) -> None:
        """Judge a frame that claims to be a reply and pass a genuine one on."""
        try:
            reply = self.open_reply(frame)
        except Refusal:
            self._hint(frame)
            return
        future = self._waiting.get(reply.op_id)
        if future is not None and not future.done():
            future.set_result(reply)
        if self.on_reply is not None:
            self.on_reply(reply)

    def _hint(self, frame: bytes) -> None:
        try:
            self.hints.append(Hint.decode(frame))
        except Refusal:
            self.bad_replies += 1
