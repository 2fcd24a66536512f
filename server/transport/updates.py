"""Updates over MQTT: answer who asks, tell what is on offer, serve what is fetched, note what is reported.

A terminal that asked gets what its place in the rollouts says, with an answer bound to its nonce. One that
has not asked yet gets the newest offer of every hardware class and takes the one that names its own.
Whatever a terminal fetches it checks against the signed manifest, so nothing here is a promise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from server.devices.verify import Session
from server.releases.rollout import Rollout, RolloutState, choose
from server.releases.serving import Releases, ServedBundle
from server.storage.update_reports import Offered, Report, StoreReports
from server.transport.commands import Commands
from server.transport.limits import RateLimiter
from server.transport.observations import Observations
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import Presence
from server.wire.freshness import OtaAsk, OtaFresh
from server.wire.updates import OtaGet, OtaState

OFFER, GET, CHUNK, STATE = "ota/offer", "ota/get", "ota/chunk", "ota/state"
ASK, FRESH, ROTATION = "ota/ask", "ota/fresh", "ota/rotation"
REPEAT_S = 10.0
MAX_REPORTS = 4096
MAX_CLASSES = 4  # of hardware, per terminal: its application's and its firmware images'


@dataclass(frozen=True)
class SiteReleases:
    """What is on offer at a site: bundles, who gets which, terminals' groups, key rotations by epoch."""

    releases: Releases = field(default_factory=Releases)
    rollouts: Mapping[bytes, Rollout] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    rotations: tuple[tuple[int, bytes], ...] = ()


class _Asked(NamedTuple):
    """What a terminal said of itself: the release it runs, the epoch of the release key it knows."""

    running: int
    key_epoch: int


class Updates:
    """Offers and serves bundles through ``send(device, topic_tail, payload)``. ``clock`` gives monotonic
    seconds.
    """

    def __init__(
        self,
        site: str,
        send: Callable[[str, str, bytes], None],
        limiter: RateLimiter,
        observations: Observations,
        sessions: Mapping[str, Session],
        clock: Callable[[], float],
    ) -> None:
        self._site = site
        self._send = send
        self._limiter = limiter
        self._observations = observations
        self._sessions = sessions
        self._clock = clock
        self.commands = Commands(send, sessions, lambda device: self._offered.pop(device, None))
        self._on_offer = SiteReleases()
        self._running: dict[str, int] = {}
        self._asked: dict[str, dict[str, _Asked]] = {}  # device -> hardware class -> its question
        self._offered: dict[str, tuple[float, frozenset[bytes]]] = {}
        self._reports: deque[tuple[str, Report]] = deque(maxlen=MAX_REPORTS)

    # ------------------------------------------------------------ what is on offer

    def replace(self, on_offer: SiteReleases) -> None:
        """Serve these from now on and tell every terminal seen so far."""
        self._on_offer = on_offer
        self._offered.clear()
        for device in self._running:
            self._offer(device)

    def targets(self, device: str) -> list[ServedBundle]:
        """The bundles a terminal shall have now: at most one for each hardware class it has asked about."""
        asked = self._asked.get(device, {})
        found = [self._chosen(device, hardware, said) for hardware, said in asked.items()]
        return [served for served in found if served is not None]

    def served(self, ref: bytes) -> ServedBundle | None:
        """A published bundle, unless its rollout was halted."""
        rollout = self._on_offer.rollouts.get(ref)
        if rollout is None or rollout.state is RolloutState.HALTED:
            return None
        return self._on_offer.releases.find(ref)

    def may_fetch(self, device: str, ref: bytes) -> bool:
        """Whether a release's rollout has this terminal; one that is fetching may end while it is paused."""
        rollout = self._on_offer.rollouts.get(ref)
        return rollout is not None and rollout.includes(device, self._on_offer.groups.get(device, ""))

    # ------------------------------------------------------------ what terminals send

    def present(self, device: str, presence: Presence) -> None:
        """A terminal said that it is here (or, by its last will, gone) and what it runs."""
        if presence.online:
            if self._running.get(device) != presence.running:
                self._asked.pop(device, None)  # it runs something else now: its next question says what
            self._running[device] = presence.running
            self._offer(device)
        else:
            self._running.pop(device, None)
            self._offered.pop(device, None)

    def ask(self, device: str, frame: bytes) -> None:
        """A terminal asks whether there is an update for it. Raises: Refusal."""
        ask = OtaAsk.decode(frame)
        if self._limiter.update(device) > 0:
            self._observations.refuse(device, "update_rate_limited")
            return
        session = self._sessions.get(device)
        if session is None:
            raise Refusal(RefusalCode.UNKNOWN_SESSION, "an answer needs a session to be bound to")
        self._remember(device, ask)
        target = self._chosen(device, ask.hardware, _Asked(ask.running, ask.key_epoch))
        ref, version = (b"", 0) if target is None else (target.ref, target.bundle.manifest.version)
        self._send(device, FRESH, session.seal_fresh(OtaFresh(ask.nonce, ref, version)))
        self.commands.greet(device)
        if target is not None and ask.key_epoch:
            for epoch, rotation in self._on_offer.rotations:
                if ask.key_epoch < epoch <= target.key_epoch:  # no further: it may need the older key again
                    self._send(device, ROTATION, rotation)
        self._offer(device)

    def _remember(self, device: str, ask: OtaAsk) -> None:
        self._running.setdefault(device, ask.running)
        asked = self._asked.setdefault(device, {})
        if ask.hardware not in asked and len(asked) == MAX_CLASSES:
            asked.clear()
        asked[ask.hardware] = _Asked(ask.running, ask.key_epoch)
        self._reports.append((device, ask))

    def get(self, device: str, frame: bytes) -> None:
        """A terminal asks for hashes or chunks. Raises: Refusal."""
        if self._limiter.update(device) > 0:
            self._observations.refuse(device, "update_rate_limited")
            return
        request = OtaGet.decode(frame)
        served = self.served(request.ref)
        if served is None:
            raise Refusal(RefusalCode.UNKNOWN_RELEASE, "no such bundle is offered here")
        for chunk in served.answer(request):
            self._send(device, CHUNK, chunk.encode())

    def state(self, device: str, frame: bytes) -> None:
        """A terminal reports where its update stands. Raises: Refusal."""
        said = OtaState.decode(frame)
        self._observations.updating(device, said)
        self._reports.append((device, said))

    # ------------------------------------------------------------ what is remembered

    def take(self, now_s: int) -> StoreReports | None:
        """Everything reported since the last call as a writer job, or None."""
        if not self._reports:
            return None
        job = StoreReports(self._site, tuple(self._reports), now_s)
        self._reports.clear()
        return job

    def restore(self, job: StoreReports) -> None:
        """Take back what could not be stored."""
        self._reports.extendleft(reversed(job.reports))

    # ------------------------------------------------------------ offering

    def _offer(self, device: str) -> None:
        wanted = self._wanted(device)
        refs = frozenset(served.ref for served in wanted)
        at, before = self._offered.get(device, (0.0, frozenset()))
        now = self._clock()
        if not refs or (refs == before and now - at < REPEAT_S):
            return
        self._offered[device] = (now, refs)
        for served in wanted:
            if device in self._asked:
                self._reports.append((device, Offered(served.ref, served.bundle.manifest.version)))
            self._send(device, OFFER, served.offer_frame)

    def _wanted(self, device: str) -> list[ServedBundle]:
        """What to offer: the ones for the terminal's hardware, or one of every class it may have."""
        if device in self._asked:
            return self.targets(device)
        bundles = self._on_offer.releases.offers()
        kinds = sorted({served.bundle.manifest.hardware for served in bundles})
        found = [self._chosen(device, hardware, _Asked(self._running[device], 0)) for hardware in kinds]
        return [served for served in found if served is not None]

    def _chosen(self, device: str, hardware: str, said: _Asked) -> ServedBundle | None:
        plan = self._on_offer
        bundles = [one for one in plan.releases.offers() if one.bundle.manifest.hardware == hardware]
        group = plan.groups.get(device, "")
        return choose(device, group, said.running, bundles, plan.rollouts, said.key_epoch)
