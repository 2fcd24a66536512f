"""One connection of the server to an MQTT broker of its own standing, with gmqtt underneath.

What a message asks for is done first, its PUBACK leaves last: gmqtt acknowledges when the coroutine returns
that was given the message, so that coroutine waits for ``done``. As MQTT 3.1.1 has no flow control and
mosquitto 2.0.11's own is broken (every PUBACK frees a whole window), reading from the socket pauses while
too many messages wait for their commit or too many of ours for the broker's PUBACK.

gmqtt 0.8.0 is pinned: its reconnecting is switched off (it never tries again after a refused login and
leaks packet identifiers when the broker lost the session), and its transport is reached through private
names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from gmqtt import Client  # type: ignore[import-untyped]
from gmqtt.mqtt.constants import MQTTv311  # type: ignore[import-untyped]
from gmqtt.mqtt.handler import MQTTConnectError  # type: ignore[import-untyped]
from gmqtt.storage import PersistentStorage  # type: ignore[import-untyped]

from server.config import BrokerLogin, ConfigError

MAX_UNDER_WAY = 512
MAX_UNCONFIRMED = 4096
CONNECT_DEADLINE_S = 10.0
CLOSE_DEADLINE_S = 2.0
KEEP_ALIVE_S = 30
_NO_RECONNECTS = -2  # -1 means for ever, 0 still means once
_REFUSED_LOGINS = (4, 5)

Take = Callable[[str, bytes, bool, Callable[[], None]], None]


class BrokerUnavailable(ConfigError):
    """The broker cannot be used; the sentence says why and what to do."""

    code = "BROKER"


class _Unconfirmed(PersistentStorage):  # type: ignore[misc]  # gmqtt ships no types
    """gmqtt's memory of what the broker has not acknowledged; tells when it shrinks."""

    def __init__(self, freed: Callable[[], None]) -> None:
        super().__init__()
        self._freed = freed

    def __len__(self) -> int:
        return len(self._messages)

    def remove_message_by_mid(self, mid: int) -> None:
        """A PUBACK came."""
        super().remove_message_by_mid(mid)
        self._freed()


class Uplink:
    """One connection: ``open`` it once, ``close`` it once.

    ``take(topic, payload, retained, done)`` gets every message; ``done()`` acknowledges it. ``lost()`` is
    called when an opened connection has ended by itself.
    """

    def __init__(self, login: BrokerLogin, client_id: str, take: Take, lost: Callable[[], None]) -> None:
        logging.getLogger("gmqtt").setLevel(logging.CRITICAL)  # what matters arrives as an exception
        self._login = login
        self._take = take
        self._lost = lost
        self._unconfirmed = _Unconfirmed(self._pace)
        self._waiting: set[asyncio.Future[int]] = set()
        self._granted: asyncio.Future[tuple[int, ...]] | None = None
        self._paused = False
        self.up = False
        self._client = client = Client(
            client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            persistent_storage=self._unconfirmed,
            logger=logging.getLogger("gmqtt.client"),
        )
        client.set_config({"reconnect_retries": _NO_RECONNECTS})
        client.on_connect = self._connected
        client.on_message = self._message
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed

    async def open(self, filters: Iterable[str]) -> None:
        """Log in and subscribe at QoS 1. Raises: BrokerUnavailable."""
        login = self._login
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                client = self._client
                if login.user:
                    client.set_auth_credentials(login.user, login.password)
                await client.connect(
                    login.host, login.port, ssl=login.tls, keepalive=KEEP_ALIVE_S, version=MQTTv311
                )
                for topic_filter in filters:
                    await self._subscribe(topic_filter)
        except (OSError, MQTTConnectError, TimeoutError, BrokerUnavailable) as error:
            await self.close()
            raise _explained(login, error) from error

    async def close(self) -> None:
        """End the connection; what waits for a commit stays unacknowledged."""
        self.up = False
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._client.disconnect()
        except (OSError, TimeoutError):
            if self._client._connection is not None:  # whatever it was, it will not end in good order
                self._client._connection._transport.abort()
        self._release()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Publish at QoS 1. False, and nothing sent, when the broker is gone or far behind."""
        if not self.up or len(self._unconfirmed) >= 2 * MAX_UNCONFIRMED:
            return False
        self._client.publish(topic, payload, qos=1, retain=retain)
        self._pace()
        return True

    @property
    def under_way(self) -> int:
        """Messages taken and not yet acknowledged."""
        return len(self._waiting)

    async def _subscribe(self, topic_filter: str) -> None:
        self._granted = asyncio.get_running_loop().create_future()
        self._client.subscribe(topic_filter, qos=1)
        if (await self._granted)[0] > 1:
            raise BrokerUnavailable(
                f"the broker {self._login.where} does not let the user {self._login.user!r} read "
                f"{topic_filter}; give it the access list that `tableside server broker-config --out DIR` "
                f"writes"
            )

    async def _message(
        self, _client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> int:
        """gmqtt: a message came; PUBACK leaves when this returns."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)

        def done() -> None:
            if not future.done():
                future.set_result(0)

        self._take(topic, bytes(payload), bool(properties["retain"]), done)
        self._pace()
        try:
            return await future
        finally:
            self._waiting.discard(future)
            self._pace()

    def _connected(self, _client: Any, _session_present: int, _code: int, _properties: Any) -> None:
        self.up = True  # what an earlier connection left unacknowledged may come right behind

    def _subscribed(self, _client: Any, _mid: int, granted: tuple[int, ...], _properties: Any) -> None:
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(granted)

    def _disconnected(self, _client: Any, _packet: Any, _exc: Any = None) -> None:
        was_up, self.up = self.up, False
        if self._granted is not None and not self._granted.done():
            self._granted.set_exception(ConnectionResetError("the connection ended"))
        self._release()
        if was_up:
            self._lost()

    def _release(self) -> None:
        """Let go of what still waits; the connection is closed, so no PUBACK reaches anybody."""
        for future in self._waiting:
            if not future.done():
                future.set_result(0)

    def _pace(self) -> None:
        """Read from the socket only while there is room behind it.

        While there is none it pauses again with every message: gmqtt's stream reader resumes on its own.
        """
        busy = len(self._waiting) >= MAX_UNDER_WAY or len(self._unconfirmed) >= MAX_UNCONFIRMED
        if not busy and not self._paused:
            return
        connection = self._client._connection
        if connection is None or connection.is_closing():
            return
        self._paused = busy
        if busy:
            connection._transport.pause_reading()
        else:
            connection._transport.resume_reading()


def _explained(login: BrokerLogin, error: Exception) -> BrokerUnavailable:
    if isinstance(error, BrokerUnavailable):
        return error
    if isinstance(error, MQTTConnectError) and error._code in _REFUSED_LOGINS:
        return BrokerUnavailable(
            f"the broker {login.where} refused the login of the user {login.user!r}; check user and password "
            f"in --broker, or let `tableside server broker-config --out DIR` write both sides"
        )
    if isinstance(error, MQTTConnectError):
        return BrokerUnavailable(
            f"the broker {login.where} refused the connection ({error}); it must speak MQTT 3.1.1"
        )
    if isinstance(error, TimeoutError):
        return BrokerUnavailable(
            f"the broker {login.where} did not answer within {CONNECT_DEADLINE_S:g} s; is that its MQTT port?"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return BrokerUnavailable(
        f"cannot reach the broker {login.where} ({reason}); start it (mosquitto -c DIR/mosquitto.conf) or "
        f"correct --broker"
    )
