"""A chip updates its application and its firmware image: what it says of the one does not hide the other."""

from __future__ import annotations

from contextlib import closing

from database_kit import transaction
from release_kit import offer

from server.releases.rollout import Rollout, RolloutState
from server.releases.views import terminal_view
from server.storage import release_reads, releases
from server.storage.database import Database
from server.storage.releases import NewRelease
from server.storage.update_reports import Offered, StoreReports
from server.transport.observations import Observations
from server.wire.freshness import OtaAsk
from server.wire.updates import OtaState

SITE, CHIP, BOARD = "demo", "t-0001", "t-0002"
APPLICATION, IMAGE = "esp32", "esp32c3-image"


def ready(database: Database) -> None:
    """Two registered terminals; a release of each class, offered to the first."""
    with database.begin() as connection:
        for number, device in enumerate((CHIP, BOARD), 1):
            connection.exec_driver_sql(
                "INSERT INTO device (site, device, kid, spki, table_id, state, password_hash, created_at) "
                f"VALUES ('demo', '{device}', '0{number}', '0{number}', '4', 'active', '', 1)"
            )
    for ref, hardware, version in ((b"release1", APPLICATION, 0x0101), (b"release2", IMAGE, 0x0203)):
        new = NewRelease(ref, version, hardware, offer(1), b"bundle", (1, 1), None, 1)
        releases.publish(database, SITE, new, Rollout(ref, RolloutState.RUNNING, 10_000), 1)


def say(database: Database, now_s: int, *reports: tuple[str, OtaAsk | OtaState | Offered]) -> None:
    """Store what terminals say as a server does, within one of its ticks."""
    observed = Observations(SITE)
    for device, said in reports:
        if isinstance(said, OtaState):
            observed.updating(device, said)
    seen = observed.take(now_s)
    with closing(database.driver_connection()) as connection, transaction(connection):
        StoreReports(SITE, reports, now_s)(connection)
        if seen is not None:
            seen(connection)


def test_status_shows_application_and_image_of_a_chip(database: Database) -> None:
    ready(database)
    say(
        database, 7,
        (CHIP, OtaAsk(bytes(16), APPLICATION, 0x0100, 0)),
        (CHIP, Offered(b"release1", 0x0101)),
        (CHIP, OtaState(0x0101, 1, 0, 0, 0, b"release1")),
        (BOARD, OtaAsk(bytes(16), "process", 0x0100, 0)),
    )  # fmt: skip
    say(
        database, 8,
        (CHIP, OtaAsk(bytes(16), IMAGE, 0x0200, 0)),
        (CHIP, Offered(b"release2", 0x0203)),
        (CHIP, OtaState(0x0101, 1, 0, 0, 15, b"release1")),
        (CHIP, OtaState(0x0200, 3, 5, 0, 18, b"release2")),
    )  # fmt: skip
    chip, board = map(terminal_view, release_reads.terminals(database, SITE))
    shown = ("hardware", "version", "slot", "state", "release", "outcome", "asked_at")
    assert [chip[name] for name in shown] == [
        APPLICATION, "0.1.1", "b", "confirmed", b"release1".hex(), "installed", 7,
    ]  # fmt: skip
    assert [chip["image"][name] for name in shown] == [
        IMAGE, "0.2.0", "image ota_0", "rolled back", b"release2".hex(), "failed", 8,
    ]  # fmt: skip
    assert "did not prove itself" in chip["image"]["reason"]
    assert chip["reason"] == "the release runs there already"
    assert (board["hardware"], board["version"], board["image"]) == ("process", None, None)


def test_a_question_is_kept_for_each_hardware_class(database: Database) -> None:
    ready(database)
    for now_s, hardware, running in ((1, APPLICATION, 5), (2, IMAGE, 6), (3, APPLICATION, 7)):
        say(database, now_s, (CHIP, OtaAsk(bytes(16), hardware, running, 0)))
    with database.begin() as connection:
        found = connection.exec_driver_sql(
            "SELECT hardware, running, asked_at FROM update_question ORDER BY hardware"
        )
        assert [tuple(row) for row in found] == [(APPLICATION, 7, 3), (IMAGE, 6, 2)]
