"""Updates over MQTT: tell terminals what is on offer, answer what they fetch, note where they stand.

A terminal's hardware class is its own business: it gets the newest offer of every class above its running
release and takes the one that names its hardware. Whatever it fetches it checks against the signed
manifest, so nothing here is a promise.
"""

from __future__ import annotations

from collections.abc import Callable

from server.releases.serving import Releases, ServedBundle
from server.transport.limits import RateLimiter
from server.transport.observations import Observations
from server.wire.frames import Presence
from server.wire.updates import OtaState

OFFER, GET, CHUNK, STATE = "ota/offer", "ota/get", "ota/chunk", "ota/state"
REPEAT_S = 10.0


class Updates:
    """Offers and serves bundles through ``send(device, topic_tail, payload)``. ``clock`` gives monotonic
    seconds.
    """

    def __init__(
        self,
        send: Callable[[str, str, bytes], None],
        limiter: RateLimiter,
        observations: Observations,
        clock: Callable[[], float],
    ) -> None:
        self._send = send
        self._limiter = limiter
        self._observations = observations
        self._clock = clock
        self._releases = Releases()
        self._running: dict[str, int] = {}
        self._offered: dict[str, tuple[float, frozenset[bytes]]] = {}

    def replace(self, releases: Releases) -> None:
        """Serve these from now on and tell every terminal seen so far."""
        self._releases = releases
        self._offered.clear()
        for device in self._running:
            self._offer(device)

    def present(self, device: str, presence: Presence) -> None:
        """A terminal said that it is here (or, by its last will, gone) and what it runs."""
        if presence.online:
            self._running[device] = presence.running
            self._offer(device)
        else:
            self._running.pop(device, None)
            self._offered.pop(device, None)

    def get(self, device: str, frame: bytes) -> None:
        """A terminal asks for hashes or chunks. Raises: Refusal."""
        if self._limiter.update(device) > 0:
            self._observations.refuse(device, "update_rate_limited")
            return
        for chunk in self._releases.answer(frame):
            self._send(device, CHUNK, chunk)

    def state(self, device: str, frame: bytes) -> None:
        """A terminal reports where its update stands. Raises: Refusal."""
        self._observations.updating(device, OtaState.decode(frame))

    def _offer(self, device: str) -> None:
        newest = self._newest(self._running[device])
        refs = frozenset(served.ref for served in newest)
        at, before = self._offered.get(device, (0.0, frozenset()))
        now = self._clock()
        if not refs or (refs == before and now - at < REPEAT_S):
            return
        self._offered[device] = (now, refs)
        for served in newest:
            self._send(device, OFFER, served.offer_frame)

    def _newest(self, running: int) -> list[ServedBundle]:
        kinds = sorted({served.bundle.manifest.hardware for served in self._releases.offers()})
        found = [self._releases.offer_for(hardware, running) for hardware in kinds]
        return [served for served in found if served is not None]
