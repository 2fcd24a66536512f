"""An MQTT broker that is not ours (mosquitto, RabbitMQ) in the place of the embedded one.

The same promises by other means. Orders: the server's session at the broker is persistent and a message is
acknowledged after the commit, so what was not committed is delivered again, and the op-id makes that
harmless. Replies: published at QoS 1 after the commit; one that is lost with the broker is asked for again
by its terminal, which gets the stored answer. Retained beacon and menu: published again on every connection,
because a broker may have forgotten them. Who may publish where is the broker's access list
(``server.brokerfiles``); a broker that does not keep it can delay terminals and waste time, but not order
in their names: the MAC decides.

One server per site: the client id is the site's, a second server would push the first one out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from server.config import BrokerLogin
from server.transport.acl import STATE
from server.transport.seams import OnPublish
from server.transport.uplink import BrokerUnavailable, Uplink
from server.wire.errors import Refusal
from server.wire.frames import Presence

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0
RETRY_S = 1.0
_log = logging.getLogger("tableside.broker")


def client_id_of(site: str) -> str:
    """The server's client id and, in our own configurations, its user name; no device can have it."""
    return f"server.{site}"


class ExternalBroker:
    """The site's messages over one connection to a broker, made again with back-off when it ends.

    ``known(device)`` says whether a device is registered: the broker's word for it is not taken.
    ``refuse(device, code)`` counts what was turned away.
    """

    def __init__(
        self,
        *,
        site: str,
        login: BrokerLogin,
        known: Callable[[str], bool],
        on_publish: OnPublish,
        refuse: Callable[[str, str], None],
    ) -> None:
        self.site = site
        self._login = login
        self._known = known
        self._ingest = on_publish
        self._refuse = refuse
        self._retained: dict[str, bytes] = {}
        self._found: set[str] = set()
        self._present: set[str] = set()
        self._uplink: Uplink | None = None
        self._ended = asyncio.Event()
        self._connected_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and subscribe. Raises: BrokerUnavailable."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep_connected())

    async def shutdown(self) -> None:
        """Say goodbye; the broker keeps what was not acknowledged for the next start."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._uplink is not None:
            await self._uplink.close()
            self._uplink = None

    @property
    def listening(self) -> bool:
        """Whether it was started; the connection itself may be in repair."""
        return self._keeper is not None

    @property
    def address(self) -> tuple[str, int]:
        """Where terminals connect: the broker's own address, as this server was given it."""
        return self._login.host, self._login.port

    def connected(self) -> list[str]:
        """Devices that have been heard of since the start and have not left."""
        return list(self._present)

    def disconnect(self, device: str) -> None:
        """Forget a device; its connection is the broker's, its session is gone already."""
        self._present.discard(device)

    def send(self, device: str, topic: str, payload: bytes) -> bool:
        """Publish a message for one device at QoS 1; False when the broker cannot take it now."""
        sent = self._uplink is not None and self._uplink.publish(topic, payload)
        if not sent:
            self._refuse(device, "mqtt_broker_behind")
        return sent

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish below ``s/<site>`` and have it kept (empty: forgotten), now and after every reconnect."""
        if payload:
            self._retained[topic] = payload
        else:
            self._retained.pop(topic, None)
        if self._uplink is not None:
            self._uplink.publish(topic, payload, retain=True)

    def forget_retained_from(self, prefix: str, first: int) -> None:
        """Forget the retained messages ``prefix``N with N >= ``first``."""
        for topic in {*self._retained, *self._found}:
            number = topic[len(prefix) :]
            if topic.startswith(prefix) and number.isdecimal() and int(number) >= first:
                self.publish_retained(topic, b"")
                self._found.discard(topic)

    async def _connect(self) -> None:
        uplink = self._uplink = Uplink(self._login, client_id_of(self.site), self._take, self._ended.set)
        await uplink.open((f"o/{self.site}/#", f"s/{self.site}/menu/+"))
        self._connected_at = asyncio.get_running_loop().time()
        for topic, payload in self._retained.items():
            uplink.publish(topic, payload, retain=True)

    async def _keep_connected(self) -> None:
        while True:
            await self._ended.wait()
            self._refuse("", "mqtt_broker_lost")
            _log.error("the connection to the broker %s ended; connecting again", self._login.where)
            await self._repair()
            _log.error("connected to the broker %s again", self._login.where)

    async def _repair(self) -> None:
        """Connect again; after one that did not last (another server of this site?) without hurry."""
        if asyncio.get_running_loop().time() - self._connected_at > LONGEST_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._ended.clear()
            try:
                await self._connect()
                return
            except BrokerUnavailable as error:
                _log.error("%s; next attempt within %.1f s", error, self._pause_s)

    def _take(self, topic: str, payload: bytes, retained: bool, done: Callable[[], None]) -> None:
        """One message from the broker; acknowledged when ``done`` is called."""
        root, _, rest = topic.partition("/")
        if root == "s":
            if retained:
                self._found.add(topic)  # perhaps a chunk of a longer menu, from before this start
            done()
            return
        device, _, kind = rest[len(self.site) + 1 :].partition("/")
        if not kind or not self._known(device):
            self._refuse("", "mqtt_unknown_device")
            done()
            return
        if kind == STATE:
            self._presence(device, payload)
        else:
            self._present.add(device)
        self._offer(device, kind, payload, done)

    def _offer(self, device: str, kind: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        def done(stored: bool) -> None:
            if stored:
                acknowledge()
            elif self._keeper is not None:  # it stays in flight, so a full disk slows the broker down
                asyncio.get_running_loop().call_later(
                    RETRY_S, self._offer, device, kind, payload, acknowledge
                )

        self._ingest(device, kind, payload, done)

    def _presence(self, device: str, payload: bytes) -> None:
        try:
            online = Presence.decode(payload).online
        except Refusal:
            return  # the ingest decodes it too and counts the refusal
        if online:
            self._present.add(device)
        else:
            self._present.discard(device)
