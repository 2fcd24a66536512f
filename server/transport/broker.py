"""The embedded MQTT broker: amqtt's listener and packet classes around a connection of our own.

amqtt 0.12.1 as it comes acknowledges a message when it enters a RAM queue, forgets what was not
acknowledged within five seconds, never enforces keepalive, goes deaf on a client-id takeover and leaks
retained messages. Terminals only ever talk *to the server*, so the broker is a front end: what a terminal
publishes goes straight to ``on_publish``, which acknowledges after the commit, and the only messages that
go out are the server's own. ``amqtt.Broker`` keeps the listeners and their lifecycle, its packet classes
read CONNECT and SUBSCRIBE; sessions, flow control, keepalive and takeover are here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from amqtt.broker import Broker  # type: ignore[import-untyped]
from amqtt.errors import BrokerError  # type: ignore[import-untyped]

from server.config import ListenError
from server.transport.acl import may_receive
from server.transport.connect import Will
from server.transport.connection import Connection
from server.transport.descriptors import room_for
from server.transport.mqtt import topic_matches
from server.transport.seams import OnPublish
from server.transport.session import ClientSession, Message

LISTENER = "default"
SWEEP_INTERVAL_S = 0.5
KEEP_ALIVE_GRACE = 1.5


class DeviceBroker(Broker):  # type: ignore[misc]  # amqtt ships no types
    """An MQTT 3.1.1 broker for the terminals of one site.

    ``authenticate(device, password)`` decides about logins; ``refuse(device, code)`` counts what was turned
    away.
    """

    def __init__(
        self,
        *,
        site: str,
        host: str,
        port: int,
        authenticate: Callable[[str, str], Awaitable[bool]],
        on_publish: OnPublish,
        refuse: Callable[[str, str], None],
        max_packet_bytes: int = 4096,
        max_connections: int = 12_288,
    ) -> None:
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)  # what matters arrives as an exception
        logging.getLogger("transitions").setLevel(logging.ERROR)
        super().__init__({"listeners": {LISTENER: {"type": "tcp", "bind": f"{host}:{port}"}}, "plugins": {}})
        self.site = site
        self.max_packet_bytes = max_packet_bytes
        self.authenticate = authenticate
        self.ingest = on_publish
        self.refuse = refuse
        self._host, self._port = host, port
        self._max_connections = room_for(max_connections)
        self._open: set[Connection] = set()
        self._connections: dict[str, Connection] = {}
        self._client_sessions: dict[str, ClientSession] = {}
        self._retained: dict[str, tuple[int, bytes]] = {}
        self._retained_count = 0
        self._missed_since: dict[str, int] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen. Raises: ListenError when the address cannot be had."""
        try:
            await super().start()
        except BrokerError as error:
            cause = error.__cause__
            reason = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(error)
            raise ListenError(
                f"cannot listen on {self._host}:{self._port} ({reason}); choose another address with --mqtt "
                f"HOST:PORT, "
                f"port 0 takes a free one"
            ) from error
        self._sweeper = asyncio.create_task(self._sweep())

    async def shutdown(self) -> None:
        """Stop listening and close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for server in self._servers.values():
            server.instance.close()
        for connection in list(self._open):
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        await super().shutdown()

    @property
    def listening(self) -> bool:
        """Whether the listeners are up."""
        return bool(self._servers)

    @property
    def address(self) -> tuple[str, int]:
        """Where the broker listens."""
        host, port = self._servers[LISTENER].instance.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve one TCP connection (called by amqtt's listener)."""
        if len(self._open) >= self._max_connections:
            self.refuse("", "mqtt_too_many_connections")
            writer.close()
            return
        connection = Connection(self, reader, writer)
        self._open.add(connection)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await connection.run()

    def attach(self, connection: Connection, clean_session: bool) -> tuple[ClientSession, bool]:
        """Make a connection its client id's only one and return (session, whether it was there before)."""
        device = connection.device
        older = self._connections.pop(device, None)
        if older is not None:
            self.refuse(device, "mqtt_taken_over")
            older.abort()
        session = self._client_sessions.get(device)
        present = session is not None and not clean_session
        if session is None or clean_session:
            session = ClientSession(device)
        if clean_session:
            self._client_sessions.pop(device, None)
        else:
            self._client_sessions[device] = session
        self._connections[device] = connection
        return session, present

    def ended(self, connection: Connection, will: Will | None) -> None:
        """A connection is over; ``will`` is what it left behind unless it said goodbye."""
        self._open.discard(connection)
        device = connection.device
        if not device:
            return
        if self._connections.get(device) is connection:
            del self._connections[device]
            self._missed_since[device] = self._retained_count
            if will is not None:
                self.ingest(device, "state", will.payload, _ignore)

    def disconnect(self, device: str) -> None:
        """Close a device's connection and forget its session (it was suspended or retired)."""
        self._client_sessions.pop(device, None)
        self._missed_since.pop(device, None)
        connection = self._connections.get(device)
        if connection is not None:
            connection.abort()

    def connected(self) -> list[str]:
        """Devices with a live connection."""
        return list(self._connections)

    def send(self, device: str, topic: str, payload: bytes) -> bool:
        """Send one device a message at QoS 1 if it subscribed to the topic; False when nobody will ever get
        it.
        """
        connection = self._connections.get(device)
        session = connection.session if connection is not None else self._client_sessions.get(device)
        if session is None or not may_receive(self.site, device, topic):
            return False
        qos = session.granted_qos(topic)
        if qos < 0:
            return False
        data = session.send(
            Message(topic.encode(), payload, qos, retain=False), connected=connection is not None
        )
        if connection is not None:
            connection.write(data)
        return True

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish below ``s/<site>`` to everybody connected, and keep it for those who come (empty: forget
        it).

        Sessions that are away get the newest retained message of each topic when they return, not the whole
        history.
        """
        self._retained_count += 1
        if not payload:
            self._retained.pop(topic, None)
            return
        self._retained[topic] = (self._retained_count, payload)
        for connection in list(self._connections.values()):
            session = connection.session
            if session is not None:
                qos = session.granted_qos(topic)
                if qos >= 0:
                    connection.write(
                        session.send(Message(topic.encode(), payload, qos, retain=False), connected=True)
                    )

    def forget_retained_from(self, prefix: str, first: int) -> None:
        """Forget the retained messages ``prefix``N with N >= ``first``."""
        for topic in [t for t in self._retained if t.startswith(prefix) and int(t[len(prefix) :]) >= first]:
            self.publish_retained(topic, b"")

    def send_retained(self, session: ClientSession, topic_filter: str) -> None:
        """Give a new subscription what is retained under it."""
        self._send_retained(session, lambda topic, _count: topic_matches(topic_filter, topic))

    def send_missed(self, session: ClientSession) -> None:
        """Give a resumed session the retained messages published while it was away."""
        since = self._missed_since.pop(session.client_id, 0)
        self._send_retained(session, lambda _topic, count: count > since)

    def _send_retained(self, session: ClientSession, wanted: Callable[[str, int], bool]) -> None:
        connection = self._connections.get(session.client_id)
        if connection is None:
            return
        for topic, (count, payload) in self._retained.items():
            qos = session.granted_qos(topic)
            if qos >= 0 and wanted(topic, count) and may_receive(self.site, session.client_id, topic):
                connection.write(
                    session.send(Message(topic.encode(), payload, qos, retain=True), connected=True)
                )

    async def _sweep(self) -> None:
        """Close connections that were silent for one and a half times their keepalive (section 3.1.2.10)."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = loop.time()
            for connection in list(self._connections.values()):
                limit = connection.keep_alive_s * KEEP_ALIVE_GRACE
                if limit and now - connection.last_heard > limit:
                    self.refuse(connection.device, "mqtt_keepalive")
                    connection.abort(dead=True)


def _ignore(_handled: bool) -> None:
    """A will has nobody left to acknowledge it to."""
