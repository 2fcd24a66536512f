"""The device's MQTT client on real sockets, against a broker that plays a script, good or bad."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "firmware"))

from terminal.link import Backoff  # noqa: E402
from terminal.mqtt import Client  # noqa: E402

DEADLINE_S = 10
CONNACK = b"\x20\x02\x00\x00"
CONNACK_PRESENT = b"\x20\x02\x01\x00"


class Conversation:
    """One connection of the device, as the scripted broker sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def packet(self) -> tuple[int, bytes]:
        """The next packet: fixed header byte and body."""
        head = (await self._reader.readexactly(1))[0]
        size = shift = 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head, await self._reader.readexactly(size)

    async def expect(self, kind: int) -> bytes:
        head, body = await self.packet()
        assert head & 0xF0 == kind, f"packet {head:#04x} instead of {kind:#04x}"
        return body

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def accept(self, connack: bytes = CONNACK) -> bytes:
        """CONNECT, CONNACK, SUBSCRIBE, SUBACK; returns the CONNECT packet's body."""
        connect = await self.expect(0x10)
        self.send(connack)
        subscribe = await self.expect(0x80)
        self.send(b"\x90\x03" + subscribe[:2] + b"\x01")
        return connect

    async def closed(self) -> None:
        """Returns once the device closed the connection."""
        while await self._reader.read(4096):
            pass


Script = Callable[[Conversation], Awaitable[None]]


class Rig:
    """A client with what it told its owner."""

    def __init__(self, port: int, **options: object) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.downs: list[str] = []
        self.ups: list[bool] = []
        self.changed = asyncio.Condition()
        backoff = Backoff(lambda n: bytes(n), base_ms=20, cap_ms=80)
        self.client = Client(
            "127.0.0.1", port, b"t-1", b"t-1", b"pw", backoff, self._on_message, (b"d/#",), **options
        )
        self.client.on_up = self.ups.append
        self.client.on_down = lambda code, text: self.downs.append(code)

    def _on_message(self, topic: bytes, payload: memoryview) -> None:
        self.messages.append((topic, bytes(payload)))


async def _until(condition: Callable[[], object]) -> None:
    """The client has no hook for everything a test may wait for, so the loop is watched, up to a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@asynccontextmanager
async def _broker(*scripts: Script) -> AsyncIterator[tuple[int, asyncio.Future[None]]]:
    """Plays one script per connection, in order; the future resolves when all of them are through."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = list(scripts)
    playing: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        try:
            if not waiting:
                return
            await waiting.pop(0)(Conversation(reader, writer))
            if not waiting and not done.done():
                done.set_result(None)
        except (AssertionError, OSError, asyncio.IncompleteReadError) as error:
            if not done.done():
                done.set_exception(AssertionError(f"script failed: {error!r}"))
        finally:
            playing.discard(task)
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], done
    finally:
        server.close()
        for task in list(playing):
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def _run(rig: Rig, done: asyncio.Future[None], story: Awaitable[None] | None = None) -> None:
    running = asyncio.create_task(rig.client.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            if story is not None:
                await story
            await done
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_messages_go_both_ways_with_their_acknowledgements() -> None:
    async def script(peer: Conversation) -> None:
        await peer.accept()
        body = await peer.expect(0x30)
        assert body[:5] == b"\x00\x03o/x"
        peer.send(b"\x40\x02" + body[5:7])
        peer.send(b"\x32\x09\x00\x03d/y\x12\x34hi")
        assert await peer.expect(0x40) == b"\x12\x34"

    async def story() -> None:
        async with _broker(script) as (port, done):
            rig = Rig(port)

            async def publish() -> None:
                await rig.client.ready()
                rig.client.publish(b"o/x", b"hello")
                rig.client.flush()

            await _run(rig, done, publish())
            assert rig.messages == [(b"d/y", b"hi")]
            assert rig.client.protocol.flying == 0

    asyncio.run(story())


def test_unacknowledged_messages_return_after_a_reconnect_before_new_ones() -> None:
    async def first(peer: Conversation) -> None:
        await peer.accept()
        for _ in range(3):
            await peer.expect(0x30)

    async def second(peer: Conversation) -> None:
        await peer.accept(CONNACK_PRESENT)
        seen = []
        for _ in range(4):
            head, body = await peer.packet()
            seen.append((head, body[7:]))
            peer.send(b"\x40\x02" + body[5:7])
        assert seen == [(0x3A, b"0"), (0x3A, b"1"), (0x3A, b"2"), (0x32, b"3")]

    async def story() -> None:
        async with _broker(first, second) as (port, done):
            rig = Rig(port)

            async def publish() -> None:
                await rig.client.ready()
                for i in range(3):
                    rig.client.publish(b"o/x", b"%d" % i)
                rig.client.flush()
                await _until(lambda: len(rig.ups) == 2)
                rig.client.publish(b"o/x", b"3")
                rig.client.flush()

            await _run(rig, done, publish())
            assert rig.ups == [False, True]
            assert rig.downs[0] in ("CLOSED", "LOST")

    asyncio.run(story())


def test_the_window_holds_messages_back_until_pubacks_come() -> None:
    async def script(peer: Conversation) -> None:
        await peer.accept()
        ids = [(await peer.expect(0x30))[5:7] for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await peer.packet()
        for packet_id in ids:
            peer.send(b"\x40\x02" + packet_id)
        await peer.expect(0x30)

    async def story() -> None:
        async with _broker(script) as (port, done):
            rig = Rig(port, window=2)

            async def publish() -> None:
                for i in range(3):
                    await rig.client.ready()
                    rig.client.publish(b"o/x", b"%d" % i)
                    rig.client.flush()

            await _run(rig, done, publish())

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\x20\x02\x00\x05", "REFUSED"),
        (b"\x20\x02\x02\x00", "MALFORMED"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "MALFORMED"),
        (b"", "CLOSED"),
    ],
)
def test_a_bad_welcome_is_a_coded_end_and_the_next_try_works(answer: bytes, code: str) -> None:
    async def bad(peer: Conversation) -> None:
        await peer.expect(0x10)
        peer.send(answer)
        if answer:
            await peer.closed()

    async def good(peer: Conversation) -> None:
        await peer.accept()

    async def story() -> None:
        async with _broker(bad, good) as (port, done):
            rig = Rig(port)
            await _run(rig, done, _until(lambda: rig.ups))
            assert rig.downs[0] == code

    asyncio.run(story())


def test_a_malformed_packet_in_service_is_a_coded_end_and_the_client_returns() -> None:
    async def bad(peer: Conversation) -> None:
        await peer.accept()
        peer.send(b"\xf0\x00")
        await peer.closed()

    async def good(peer: Conversation) -> None:
        await peer.accept()

    async def story() -> None:
        async with _broker(bad, good) as (port, done):
            rig = Rig(port)
            await _run(rig, done, _until(lambda: len(rig.ups) == 2))
            assert rig.downs == ["MALFORMED"]

    asyncio.run(story())


def test_a_broker_that_is_down_is_tried_again_until_it_is_up() -> None:
    async def good(peer: Conversation) -> None:
        await peer.accept()

    async def story() -> None:
        async with _broker(good) as (port, done):
            pass
        rig = Rig(port)
        running = asyncio.create_task(rig.client.run())
        await _until(lambda: len(rig.downs) > 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        done.cancel()
        assert set(rig.downs) == {"CONNECT_FAILED"}

    asyncio.run(story())


def test_a_half_open_link_is_noticed_by_the_missing_ping_answer() -> None:
    async def silent(peer: Conversation) -> None:
        await peer.accept()
        assert await peer.expect(0xC0) == b""
        await peer.closed()

    async def good(peer: Conversation) -> None:
        await peer.accept()

    async def story() -> None:
        async with _broker(silent, good) as (port, done):
            rig = Rig(port, keepalive_s=1)
            await _run(rig, done)
            assert rig.downs == ["PING_TIMEOUT"]

    asyncio.run(story())


def test_an_idle_link_lives_on_pings() -> None:
    async def script(peer: Conversation) -> None:
        await peer.accept()
        for _ in range(3):
            await peer.expect(0xC0)
            peer.send(b"\xd0\x00")

    async def story() -> None:
        async with _broker(script) as (port, done):
            rig = Rig(port, keepalive_s=1)
            await _run(rig, done)
            assert rig.downs == []

    asyncio.run(story())


def test_a_message_that_stays_unacknowledged_costs_the_connection_and_is_resent() -> None:
    async def deaf(peer: Conversation) -> None:
        await peer.accept()
        while True:
            head, body = await peer.packet()
            if head == 0xC0:
                peer.send(b"\xd0\x00")
            else:
                assert body[7:] == b"order"
                break
        try:
            while True:
                if (await peer.packet())[0] == 0xC0:
                    peer.send(b"\xd0\x00")
        except asyncio.IncompleteReadError:
            return

    async def good(peer: Conversation) -> None:
        await peer.accept(CONNACK_PRESENT)
        head, body = await peer.packet()
        assert (head, body[7:]) == (0x3A, b"order")

    async def story() -> None:
        async with _broker(deaf, good) as (port, done):
            rig = Rig(port, keepalive_s=1)

            async def publish() -> None:
                await rig.client.ready()
                rig.client.publish(b"o/x", b"order")
                rig.client.flush()

            await _run(rig, done, publish())
            assert rig.downs == ["ACK_TIMEOUT"]

    asyncio.run(story())


def test_a_broker_that_stops_reading_stops_the_client_reading_and_loses_nothing() -> None:
    count = 3000

    async def script(peer: Conversation) -> None:
        await peer.accept()
        for i in range(count):
            peer.send(b"\x32\x0d\x00\x03d/y" + struct.pack(">HI", i % 65535 + 1, i) + b"..")
        for i in range(count):
            assert await peer.expect(0x40) == struct.pack(">H", i % 65535 + 1)

    async def story() -> None:
        async with _broker(script) as (port, done):
            rig = Rig(port)
            await _run(rig, done)
            assert [struct.unpack(">I", payload[:4])[0] for _, payload in rig.messages] == list(range(count))

    asyncio.run(story())


MICROPYTHON = """
import sys, asyncio
sys.path.insert(0, {firmware!r})
from terminal.mqtt import Client
from terminal.link import Backoff
async def main():
    seen = []
    client = Client("127.0.0.1", {port}, b"t-1", b"t-1", b"pw", Backoff(lambda n: bytes(n), 20, 80),
        lambda topic, payload: seen.append(bytes(payload)), (b"d/#",), None, 1)
    client.on_down = lambda code, text: print("down", code)
    task = asyncio.create_task(client.run())
    for round in range(2):
        for i in range(20):
            await client.ready()
            client.publish(b"o/x", b"%d" % i)
            client.flush()
        while len(seen) < 20 * (round + 1):
            await asyncio.sleep_ms(5)
        if round == 0:
            client.drop("DROPPED", "by the test")
            while client.connections < 2:
                await asyncio.sleep_ms(5)
    print("all", seen == [b"%d" % i for i in range(20)] * 2)
asyncio.run(main())
"""


def test_the_same_source_runs_on_micropython_through_a_reconnect() -> None:
    async def echo(peer: Conversation) -> None:
        await peer.accept()
        published = acknowledged = 0
        while acknowledged < 20:
            head, body = await peer.packet()
            if head & 0xF0 == 0x30:
                published += 1
                answer = bytes((0x32, len(body))) + b"\x00\x03d/y\x00\x01" + body[7:]
                peer.send(b"\x40\x02" + body[5:7] + answer)
            elif head == 0x40:
                acknowledged += 1
            else:
                assert head == 0xC0
                peer.send(b"\xd0\x00")
        assert published == 20
        await peer.closed()

    async def story() -> None:
        async with _broker(echo, echo) as (port, done):
            program = MICROPYTHON.format(firmware=str(ROOT / "firmware"), port=port)
            child = await asyncio.create_subprocess_exec(
                *(str(ROOT / ".venv" / "bin" / "micropython"), "-X", "heapsize=160k", "-c", program),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            talk = asyncio.create_task(child.communicate())
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await done
                    output, _ = await talk
            finally:
                if child.returncode is None:
                    child.kill()
                await asyncio.gather(talk, return_exceptions=True)
            assert output.decode().split("\n")[:2] == ["down DROPPED", "all True"]

    asyncio.run(story())
