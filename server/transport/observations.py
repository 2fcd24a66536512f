"""What the server noticed and nobody waits for: refusals by device and code, and terminals' presence.

Gathered on the event loop, handed to the writer at least every quarter second. Bounded: device names are
those of authenticated connections (or ""), codes are the server's own.
"""

from __future__ import annotations

from collections import Counter

from server.storage.registry import StoreObservations
from server.wire.frames import Presence
from server.wire.requests import Telemetry
from server.wire.updates import OtaState


class Observations:
    """Collects until ``take`` is called. Lives on the event loop."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._presences: dict[str, Presence] = {}
        self._updates: dict[tuple[str, str], OtaState] = {}
        self._telemetry: dict[str, Telemetry] = {}
        self.totals: Counter[str] = Counter()

    def refuse(self, device: str, code: str) -> None:
        """Count one refusal."""
        self._refusals[device, code] += 1
        self.totals[code] += 1

    def present(self, device: str, presence: Presence) -> None:
        """Remember what a terminal last said about itself."""
        self._presences[device] = presence

    def updating(self, device: str, state: OtaState) -> None:
        """Remember where a terminal says its update stands."""
        self._updates[device, state.layer] = state

    def measured(self, device: str, telemetry: Telemetry) -> None:
        """Remember what a terminal measured about itself."""
        self._telemetry[device] = telemetry

    def take(self, now_s: int) -> StoreObservations | None:
        """Everything gathered since the last call as a writer job, or None."""
        if not (self._refusals or self._presences or self._updates or self._telemetry):
            return None
        job = StoreObservations(
            self._site,
            dict(self._refusals),
            dict(self._presences),
            dict(self._updates),
            dict(self._telemetry),
            now_s,
        )
        self._refusals.clear()
        self._presences.clear()
        self._updates.clear()
        self._telemetry.clear()
        return job

    def restore(self, job: StoreObservations) -> None:
        """Take back what could not be stored."""
        self._refusals.update(job.refusals)
        self._presences = {**job.presences, **self._presences}
        self._updates = {**job.updates, **self._updates}
        self._telemetry = {**job.telemetry, **self._telemetry}
