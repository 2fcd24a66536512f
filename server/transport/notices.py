"""Notices on their way: sealed for every terminal of a table that has a session, after the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from server.devices.records import DeviceState
from server.devices.seams import Clock
from server.devices.verify import Session
from server.ordering.catalogue import Catalogue, Snapshot
from server.ordering.verdict import Addressed
from server.wire.notices import Notice, NoticeKind

TOPIC = "notice"


class Notices:
    """Tells terminals about their tables through ``send(device, topic_tail, payload)``; on the event loop."""

    def __init__(
        self,
        catalogue: Catalogue,
        sessions: Mapping[str, Session],
        clock: Clock,
        send: Callable[[str, str, bytes], None],
    ) -> None:
        self._catalogue = catalogue
        self._sessions = sessions
        self._clock = clock
        self._send = send
        self._seen: Snapshot | None = None
        self._by_table: dict[str, list[str]] = {}

    def tell(self, addressed: Iterable[Addressed]) -> None:
        """Send what a committed change has to say; terminals without a session miss nothing by it."""
        for one in addressed:
            for device in self._at(one.table):
                self._to(device, one.notice)

    def announce(self, device: str, table: str, seating: tuple[int, int] | None) -> None:
        """Tell a terminal with a new session which seating (id, total in minor units) is at its table."""
        if seating is not None:
            self._to(device, Notice(NoticeKind.SEATING_OPENED, table, seating[0], seating[1]))

    def _at(self, table: str) -> list[str]:
        snapshot = self._catalogue.snapshot
        if snapshot is not self._seen:
            self._seen, self._by_table = snapshot, {}
            for device, known in snapshot.devices.items():
                if known.state is DeviceState.ACTIVE:
                    self._by_table.setdefault(known.table, []).append(device)
        return self._by_table.get(table, [])

    def _to(self, device: str, notice: Notice) -> None:
        session = self._sessions.get(device)
        if session is not None:
            self._send(device, TOPIC, session.seal_notice(notice, self._clock.unix_time()))
