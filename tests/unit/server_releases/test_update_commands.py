"""Operators' commands on their way: once in a session, again in the next, the newest only."""

from __future__ import annotations

from pathlib import Path

import pytest
from release_kit import key_of

from server.devices.records import DeviceState, SessionRow
from server.devices.verify import Session
from server.storage import admin, update_commands
from server.storage.admin import AdminError
from server.storage.database import Database, open_database
from server.transport.commands import COMMAND, Commands
from server.wire.commands import Layer, OtaCommand, What

SITE, DEVICE = "demo", "t-0001"
KEY, TH8 = b"k" * 32, b"transcri"


def session(sid: bytes) -> Session:
    return Session(SessionRow(SITE, DEVICE, sid, bytes(32), KEY, bytes(32), TH8, 0, 9, b"", b"", 1))


class Wire:
    """What was sent to the terminal, and the sessions there are."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.sent: list[bytes] = []
        self.told: list[str] = []
        self.commands = Commands(self.send, self.sessions, self.told.append)

    def send(self, device: str, topic: str, payload: bytes) -> None:
        assert (device, topic) == (DEVICE, COMMAND)
        self.sent.append(payload)

    def opened(self) -> list[OtaCommand]:
        row = self.sessions[DEVICE].row
        return [OtaCommand.open(frame, row.k_s2d, SITE, DEVICE, row.sid, row.th8) for frame in self.sent]


def test_a_command_is_sent_once_in_a_session_and_again_in_the_next() -> None:
    wire, cancel = Wire(), OtaCommand(5, Layer.IMAGE, What.CANCEL)
    wire.commands.replace({DEVICE: cancel})
    assert wire.sent == [], "nobody is there to hear it"
    wire.sessions[DEVICE] = session(b"sid1")
    for _ in range(2):
        wire.commands.greet(DEVICE)
    assert wire.opened() == [cancel]
    assert wire.told == [DEVICE]
    wire.sent.clear()
    wire.sessions[DEVICE] = session(b"sid2")
    wire.commands.greet(DEVICE)
    assert wire.opened() == [cancel]


def test_a_newer_command_goes_out_at_once_to_who_is_there() -> None:
    wire = Wire()
    wire.sessions[DEVICE] = session(b"sid1")
    commands = [OtaCommand(5, Layer.IMAGE, What.CANCEL), OtaCommand(6, Layer.APPLICATION, What.RELEASE)]
    for command in commands:
        wire.commands.replace({DEVICE: command})
    assert wire.opened() == commands


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = open_database(tmp_path, create=True)
    admin.ensure_site(made, SITE)
    admin.add_device(
        made,
        SITE,
        DEVICE,
        table="4",
        spki=key_of(1).spki,
        password_hash="x",
        state=DeviceState.ACTIVE,
        now_s=1,
    )
    return made


def test_every_command_has_a_higher_number_than_the_one_before_and_is_kept_for_a_day(
    database: Database,
) -> None:
    first = update_commands.command(database, SITE, DEVICE, Layer.IMAGE, What.CANCEL, 1000)
    second = update_commands.command(database, SITE, DEVICE, Layer.IMAGE, What.RELEASE, 1000)
    assert (first.number, second.number) == (1000, 1001)
    assert update_commands.newest(database, SITE, 1000) == {DEVICE: second}
    assert update_commands.newest(database, SITE, 1000 + update_commands.KEPT_S) == {}
    later = update_commands.command(database, SITE, DEVICE, Layer.APPLICATION, What.CANCEL, 5000)
    assert later.number == 5000
    database.close()


def test_nobody_is_told_in_an_unknown_terminals_name(database: Database) -> None:
    with pytest.raises(AdminError, match="no device"):
        update_commands.command(database, SITE, "t-0404", Layer.IMAGE, What.CANCEL, 1000)
    database.close()
