"""The ten guarantees, each judged from what the terminal told and what lies in its flash.

G1 bootable after any cut · G2 the files in use are exactly one signed bundle · G3 confirmed stays confirmed ·
G4 the floor never falls, and rises only with a confirmation · G5 bounded boots, bytes and messages · G6 ends
with the new release or a reported rollback · G7 outbox, keys, menu and counters survive · G8 orders stay
exactly-once · G9 erases stay within what was stated · G10 what is reported is what runs, and a report names
the bundle it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.campaign import bounds, record
from bench.campaign.bundles import IMAGE, SERVED_BEFORE, Release
from bench.campaign.machine import CRASH, HUNG, RESETS, Life
from bench.campaign.updates import INSTALLED
from bench.campaign.world import World
from server.wire.updates import REFERENCE_BYTES, OtaState

MAX_LIVES = 8  # starts until the terminal is content
MAX_LIVES_OF_BAD = 12  # three tries of a release that does not start, before and after every cut
MAX_ERASES = 64  # of one recovery, by everything in the terminal
MAX_PROGRAM_BYTES = 120_000
MAX_MESSAGES = 1200
_GOOD_REASONS = {0}
CANCELLED = 7  # the reason
CRASH_LOOP = 28
IDENTITY_DAMAGED = "IDENTITY_DAMAGED"
FACTORY = "factory"
NO_DIGEST = bytes(32)
_SLOTS = ("a", "b", FACTORY)


@dataclass(frozen=True)
class Failure:
    """A guarantee that did not hold, and what was seen."""

    oracle: str
    text: str


@dataclass
class Facts:
    """What had been promised before the fault: these things must hold afterwards.

    `queued`: op to CRC of its bytes; `settled`: ops whose answer is durable; `chunks`: asked for so far;
    `quarantined`: beginnings of bundles that failed; `spoilt`: releases a bit of which rotted in its slot;
    `told_rollback`: whether a report of one was handed to the link.
    """

    queued: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    handshake: int = 0
    boots: int = 0
    floor: int = 0
    confirmed: int = 0  # version of the newest release known to be confirmed
    chunks: int = 0
    quarantined: set[bytes] = field(default_factory=set)
    spoilt: set[str] = field(default_factory=set)
    told_rollback: bool = False

    def copy(self) -> Facts:
        """An independent copy."""
        return replace(
            self,
            queued=dict(self.queued),
            settled=set(self.settled),
            answered=set(self.answered),
            quarantined=set(self.quarantined),
            spoilt=set(self.spoilt),
        )

    def learn(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        for op, crc in event.get("pending") or () if "started" in event else ():
            self.queued.setdefault(op, crc)
        if "queued" in event:
            self.queued[event["queued"]] = event["crc"]
        if "settled" in event:
            self.settled.add(event["settled"])
        if "answered" in event:
            self.answered.add(event["answered"])
        self.handshake = max(self.handshake, event.get("handshake", 0))
        self.boots = max(self.boots, event.get("boots", 0))
        self.confirmed = max(self.confirmed, event.get("confirmed", 0))
        self.chunks += event["count"] if "chunk" in event else 0
        if "handed" in event and OtaState.decode(bytes.fromhex(event["handed"])).state == record.ROLLED_BACK:
            self.told_rollback = True


@dataclass(frozen=True)
class Case:
    """What is expected of one line.

    `outcome`: new, or rollback; `refused`: the first life meets a bad server, says so and installs nothing;
    `hostile`: its very offer must be refused; `rotten`: a bit of the file system flipped, or what ran is for
    another image; `lossy`: a bit of this region flipped (journal: orders may be lost or come back; counters:
    numbers may repeat); `nameless`: both copies of the identity rotted: the terminal has to say so, do
    nothing else, and go on as if nothing had happened once it was provisioned again;
    `first`: the release that has to run first, where the flash says so; `reasons`: why it may be rolled back;
    `crashes`: what was confirmed does not last; `tries`, `starts`: failed and all starts on trial where they
    are known, else 0; `most_chunks`: asked for, with those before the fault; `spoilt_from`: the first chunk
    the server sends wrong bytes for;
    `offered`: the release the server has; `known`: every order a guest may have placed, but for those of a
    life that was killed before it could tell of them (`unseen`).
    """

    offered: str
    outcome: str
    rotten: bool = False
    lossy: str = ""
    refused: bool = False
    hostile: bool = False
    nameless: bool = False
    max_lives: int = MAX_LIVES
    unseen: bool = False
    known: Mapping[str, int] = field(default_factory=dict)
    first: str = ""
    reasons: frozenset[int] = frozenset()
    tries: int = 0
    starts: int = 0
    most_chunks: int | None = None
    spoilt_from: int | None = None
    crashes: bool = False


class Judge:
    """Judges the lives after the last fault, in order."""

    def __init__(self, world: World, case: Case, facts: Facts) -> None:
        self._world = world
        self._case = case
        self._facts = facts
        self._offered: Release = world.releases[case.offered]
        self._old: Release = world.releases["old"]
        self._versions = {r.says: r for r in world.releases.values()} | {
            IMAGE: Release("factory", IMAGE, IMAGE, 0, b"", "", 0, 0, b"", True)
        }
        self.failures: list[Failure] = []
        self._reasons: set[int] = set()
        self._sent: dict[str, int] = {}

    def judge(self, lives: Sequence[Life]) -> list[Failure]:
        """Return what does not hold."""
        self._download(lives)
        for number, life in enumerate(lives):
            started = life.first("started")
            self._bootable(life, started)
            if number == 0 and self._case.first:
                self._first(started)
            if started is not None:
                self._files(life, started)
                self._on_trial(started)
                self._kept(started, self._case.unseen and number == 0)
                self._reports(life, started)
            if life.is_last:
                self._floor(life)
                self._list(life)
            self._orders(life)
            self._refusing(life)
            if number == 0 and self._case.refused:
                self._refusal(life)
            for event in life.events:
                self._counters(event)
                self._facts.learn(event)
        self._bounds(lives)
        self._end(lives[-1])
        return self.failures

    def _fail(self, oracle: str, text: str) -> None:
        self.failures.append(Failure(oracle, text))

    def _bootable(self, life: Life, started: Mapping[str, Any] | None) -> None:
        excused = not self._offered.starts and life.exit_code in RESETS
        if self._case.nameless:  # a release on trial cannot prove itself without an identity
            excused = life.exit_code in RESETS or life.first("refused") is not None
        if life.exit_code not in (0, *RESETS) or (life.exit_code == CRASH and not excused):
            why = "hung" if life.exit_code == HUNG else f"ended with {life.exit_code}"
            self._fail("G1", f"the terminal {why}: {life.console[-300:]!r}")
        elif started is None and not excused:
            self._fail("G1", f"the application did not start: {life.console[-300:]!r}")

    def _files(self, life: Life, started: Mapping[str, Any]) -> None:
        version, slot = started["started"], started["slot"]
        release = self._versions.get(version)
        if release is None:
            self._fail("G2", f"a release nobody made runs: {version:#x}")
        elif slot != "factory" and started["files"] != release.files:
            self._fail("G2", f"slot {slot} runs {version:#x} but does not hold exactly its files")
        elif slot == "factory" and version != IMAGE:
            self._fail("G2", f"the factory application calls itself {version:#x}")
        ended = life.first("ended")
        if ended is not None and ended["files"] != started["files"]:
            self._fail("G2", f"slot {slot} changed while it ran")
        if ended is not None and ended["violations"]:
            self._fail("G9", f"{ended['violations']} programs tried to set a bit that was cleared")
        if self._case.rotten or self._case.nameless or self._case.crashes:
            return
        if version not in (self._old.version, self._offered.says):
            self._fail("G3", f"{version:#x} runs; neither the old nor the offered release")
        if self._facts.confirmed == self._offered.version and started["trial"]:
            self._fail("G3", "the new release had confirmed, and is on trial again")
        if self._facts.confirmed == self._offered.version != version:
            self._fail("G3", f"the new release had confirmed, but {version:#x} runs")

    def _first(self, started: Mapping[str, Any] | None) -> None:
        """What runs where the release in use rotted."""
        wanted = IMAGE if self._case.first == FACTORY else self._world.releases[self._case.first].version
        if started is None or started["started"] != wanted:
            runs = "nothing" if started is None else f"{started['started']:#x}"
            self._fail("G3", f"{runs} runs; {wanted:#x} ({self._case.first}) is what was left")

    def _on_trial(self, started: Mapping[str, Any]) -> None:
        known = self._facts.confirmed == self._offered.version
        if started["started"] == self._offered.says and not started["trial"] and not known:
            self._fail("G3", f"{started['started']:#x} runs without a trial, and never confirmed")

    def _kept(self, started: Mapping[str, Any], may_be_new: bool) -> None:
        facts = self._facts
        if started["who"] != self._world.who or (started["menu"] != 1 and not self._case.rotten):
            self._fail("G7", f"identity {started['who']!r} or menu {started['menu']!r} was lost")
        if started["boots"] <= facts.boots and self._case.lossy != "counters":
            self._fail("G7", f"boot number {started['boots']} after {facts.boots}")
        pending = dict(started["pending"])
        must = facts.queued.keys() - facts.settled - facts.answered
        missing = must - pending.keys()
        spoilt = self._case.lossy == "journal"
        if (missing or started["lost"]) and not spoilt:
            self._fail("G7", f"orders are gone: {sorted(missing)}, {started['lost']} rotted")
        if facts.settled & pending.keys() and not spoilt:
            self._fail("G8", f"settled orders came back: {sorted(facts.settled & pending.keys())}")
        known = {**self._case.known, **facts.queued}
        for op, crc in pending.items():
            if known.get(op, crc if may_be_new else None) != crc:
                self._fail("G8", f"order {op} is pending that no guest placed")

    def _refusing(self, life: Life) -> None:
        """A terminal that does not know who it is says why, and nothing else."""
        refused = life.first("refused")
        if refused is not None and not self._case.nameless:
            self._fail("G1", f"the terminal refuses to start: {refused['refused']}")
        if refused is not None and (refused["refused"] != IDENTITY_DAMAGED or len(life.events) > 1):
            self._fail("G10", f"without an identity it tells {[dict(event) for event in life.events]}")

    def _counters(self, event: Mapping[str, Any]) -> None:
        number = event.get("handshake")
        if number is not None and number <= self._facts.handshake and self._case.lossy != "counters":
            self._fail("G7", f"handshake number {number} after {self._facts.handshake}")

    def _orders(self, life: Life) -> None:
        for event in life.events:
            if "sent" in event:
                crc = self._sent.setdefault(event["sent"], event["crc"])
                if crc != event["crc"] or self._facts.queued.get(event["sent"], crc) != crc:
                    self._fail("G8", f"order {event['sent']} was sent with other bytes")

    def _reports(self, life: Life, started: Mapping[str, Any]) -> None:
        for frame in life.all("told"):
            state = OtaState.decode(bytes.fromhex(frame))
            self._reasons.add(state.reason)
            if (state.running, _SLOTS[state.slot]) != (started["started"], started["slot"]):
                told = f"{state.running:#x} in {_SLOTS[state.slot]}"
                self._fail("G10", f"{told} was reported, {started['started']:#x} in {started['slot']} runs")
            if not self._is_about(state, started["started"]):
                name = "none" if state.ref is None else state.ref.hex() or "no bundle"
                self._fail("G10", f"a report of {record.NAMES[state.state]} ({state.reason}) is about {name}")

    def _is_about(self, said: OtaState, running: int) -> bool:
        """Whether a report names the right bundle: the one under way, rolled back or running."""
        runs = self._versions[running].digest if running in self._versions else b""
        if said.ref is None:
            return False
        if said.state == record.TRIAL or (said.state == record.CONFIRMED and not said.reason):
            return said.ref == runs[:REFERENCE_BYTES]
        if said.state == record.CONFIRMED or (said.reason and said.state != record.ROLLED_BACK):
            return True  # of an offer that was refused, or of a download given up
        others = [release.digest for release in self._world.releases.values() if release.digest != runs]
        return bool(said.ref) and any(digest.startswith(said.ref) for digest in others)

    def _floor(self, life: Life) -> None:
        now = life.record
        if now is None:
            if not self._case.rotten:
                self._fail("G4", "no control record can be read")
            return
        if now.floor < self._facts.floor:
            self._fail("G4", f"the floor fell from {self._facts.floor:#x} to {now.floor:#x}")
        is_confirmed = now.hash == self._offered.digest
        was_confirmed = is_confirmed or self._facts.confirmed == self._offered.version
        if not was_confirmed and now.floor > self._old.floor:
            self._fail("G4", "the floor rose before the new release was confirmed")
        if not self._case.rotten and now.hash not in (self._old.digest, self._offered.digest):
            self._fail("G3", "the confirmed bundle was forgotten")
        if is_confirmed and life.first("started") is not None:
            confirming = [e for e in life.events if "confirmed" in e]
            if not confirming and self._facts.confirmed != self._offered.version and self._is_fresh(life):
                self._fail("G3", "the new release counts as confirmed without having run")
        self._facts.floor = max(self._facts.floor, now.floor)

    def _list(self, life: Life) -> None:
        """The other bundles a control record names: what ran before, and what failed here."""
        now = life.record
        if now is None:
            return
        gone = self._facts.quarantined - now.quarantined
        if gone:
            self._fail("G6", f"quarantined bundles were forgotten: {sorted(one.hex() for one in gone)}")
        self._facts.quarantined |= now.quarantined
        ran = {self._world.releases[name].digest for name in SERVED_BEFORE} | {NO_DIGEST}
        if self._facts.confirmed == self._offered.version or now.hash == self._offered.digest:
            ran.add(self._offered.digest)
        if now.state == record.CONFIRMED and now.other_hash not in ran:
            self._fail("G3", f"{now.other_hash[:6].hex()} counts as what ran before, and never did")
        if bounds.is_over(now):
            self._fail("G5", f"on trial still, with {now.tries} tries and {now.starts} starts")

    def _is_fresh(self, life: Life) -> bool:
        started = life.first("started")
        return started is not None and started["started"] != self._offered.version

    def _bounds(self, lives: Sequence[Life]) -> None:
        erases = sum(life.trace.erases for life in lives)
        programmed = sum(life.trace.program_bytes for life in lives)
        messages = sum(life.all("messages")[0] for life in lives if life.all("messages"))
        if len(lives) > self._case.max_lives:
            self._fail("G5", f"not settled after {self._case.max_lives} starts")
        if programmed > MAX_PROGRAM_BYTES or messages > MAX_MESSAGES:
            self._fail("G5", f"{programmed} bytes programmed, {messages} messages")
        if erases > MAX_ERASES:
            self._fail("G9", f"{erases} sector erases")
        if not self._case.nameless:
            self._trials(lives)

    def _trials(self, lives: Sequence[Life]) -> None:
        failed, starts = bounds.failed_trials(lives), bounds.trials(lives)
        if failed > bounds.MAX_TRIES or starts > max(bounds.MAX_STARTS, self._case.starts):
            self._fail("G5", f"{failed} failed starts on trial, {starts} that told of it")
        if self._case.tries and failed != self._case.tries:
            self._fail("G5", f"{failed} failed starts on trial, not {self._case.tries}")
        if self._case.starts and starts != self._case.starts:
            self._fail("G5", f"{starts} starts on trial, not {self._case.starts}")

    def _download(self, lives: Sequence[Life]) -> None:
        """Each chunk is asked for once, but for what a fault may have cost, and none behind a wrong one."""
        asked, most = self._facts.chunks + bounds.chunks(lives), self._case.most_chunks
        if most is not None and asked > most:
            self._fail("G5", f"{asked} chunks were asked for of {self._offered.chunks}, {most} at most")
        if self._case.spoilt_from is not None and bounds.furthest(lives[0]) > self._case.spoilt_from:
            furthest = bounds.furthest(lives[0])
            self._fail("G5", f"chunk {furthest} was asked for, and {self._case.spoilt_from} was never right")

    def _end(self, last: Life) -> None:
        ended, now = last.first("ended"), last.record
        if ended is None or now is None:
            self._fail("G6", "the terminal does not come to rest")
            return
        if ended["pending"]:
            self._fail("G8", f"{ended['pending']} orders are still pending at the end")
        new, old = self._offered, self._old
        is_new = (ended["ended"], now.state, now.hash) == (new.says, record.CONFIRMED, new.digest)
        if self._case.nameless and (is_new or self._reasons - {0}):
            return
        if self._case.outcome == INSTALLED:
            self._installed(ended, now, is_new)
            return
        is_old = (ended["ended"], now.hash) == (old.version, old.digest)
        if not (is_old or self._case.rotten) or ended["ended"] == new.says:
            self._fail("G6", f"ends with {ended['ended']:#x} instead of the old release")
        why = self._reasons - {0} if self._case.rotten else self._reasons & self._case.reasons
        if not why:
            self._fail("G6", f"rolled back for one of {sorted(self._case.reasons)}, which was not reported")
        was_rolled_back = self._case.reasons != {CANCELLED}  # else it may have been given up before it ran
        if (
            was_rolled_back
            and now.state == record.CONFIRMED
            and not (self._facts.told_rollback or self._case.rotten or self._case.crashes)
        ):
            self._fail("G10", "the rollback counts as reported, and the server was never told")
        if not now.is_quarantined(new.digest):
            self._fail("G6", "a release that failed is not quarantined")

    def _installed(self, ended: Mapping[str, Any], now: record.Control, is_new: bool) -> None:
        """A good release: rot may send the terminal back for a while, it takes the release all the same."""
        if not is_new:
            self._fail(
                "G6", f"ends with {ended['ended']:#x}, {record.NAMES[now.state]}; reason {ended['reason']}"
            )
        wrong = sorted(self._reasons - _GOOD_REASONS)
        if wrong and not self._case.refused and not self._case.rotten:
            self._fail("G6", f"a good release was refused or rolled back, reasons {wrong}")
        if now.is_quarantined(self._offered.digest):
            self._fail("G6", "a good release is quarantined")

    def _refusal(self, life: Life) -> None:
        """The life that met the bad server: nothing installed, and the server knows why or how far."""
        ended, now = life.first("ended"), life.record
        if (
            ended is None
            or now is None
            or (ended["ended"], now.hash) != (self._old.version, self._old.digest)
        ):
            self._fail("G6", "the old release does not run on while the server sends wrong bytes")
            return
        if now.state != record.CONFIRMED and self._case.hostile:
            self._fail("G6", "an offer that must be refused was taken up")
        if not self._reasons - {0} and now.state != record.STAGING:
            self._fail("G6", "nothing was installed, and no reason was reported")
