"""Flash map, provisioning record, console parsing, impostor helpers: the bench's small pure parts."""

from __future__ import annotations

import binascii
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from bench import provision
from bench.boards import catalogue, flashmap, qemu
from bench.boards.base import ImageFlash
from bench.console import Console, SocketWire
from bench.errors import BenchError, ConsoleClosed, DeadlinePassed, RpcRefused
from bench.paths import FIXTURE_KEYS, ROOT

sys.path.insert(0, str(ROOT / "firmware"))


def test_the_flash_map_is_the_firmwares_own() -> None:
    from terminal import regions

    ours = {name: (region.start, region.size) for name, region in flashmap.REGIONS.items()}
    assert ours == {name: regions.find(name) for name in ours}


def test_a_fresh_flash_is_erased_and_regions_do_not_touch_each_other(tmp_path: Path) -> None:
    flash = ImageFlash(tmp_path / "flash", 4 << 20)
    assert (tmp_path / "flash").stat().st_size == 4 << 20
    flash.write("identity", b"mine", 16)
    assert flash.read("identity")[14:22] == b"\xff\xffmine\xff\xff"
    assert set(flash.read("counters")) == set(flash.read("journal")) == {0xFF}
    flash.erase("identity")
    assert set(flash.read("identity")) == {0xFF}
    with pytest.raises(BenchError, match="fit"):
        flash.write("identity", bytes(5), flashmap.REGIONS["identity"].size - 4)


def test_the_provisioning_record_holds_identity_key_and_checksum() -> None:
    who = provision.identity(2, table="9")
    record = provision.record(who, provision.Endpoint("10.0.2.2", 1883), provision.root_spki())
    assert record[:4] == b"TSID"
    length = int.from_bytes(record[4:8], "big")
    body, crc = record[8 : 8 + length], record[8 + length :]
    assert crc == binascii.crc32(body).to_bytes(4, "big")
    fields = cbor2.loads(body)
    assert fields[:7] == [1, "demo", "t-0002", "9", who.password, "10.0.2.2", 1883]
    n, e, d, p, q, dp, dq, qi = (int.from_bytes(part, "big") for part in fields[8])
    assert (p * q, e * d % ((p - 1) * (q - 1))) == (n, 1)
    assert (dp, dq, qi * q % p) == (d % (p - 1), d % (q - 1), 1)
    copies = provision.copies(record)
    assert len(copies) <= flashmap.REGIONS["identity"].size
    assert copies.startswith(record)
    assert copies[flashmap.SECTOR_BYTES :] == record
    with pytest.raises(BenchError, match="does not fit"):
        provision.copies(bytes(flashmap.SECTOR_BYTES + 1))


def test_the_record_is_read_by_the_firmware() -> None:
    from terminal import identity

    class Region:
        def __init__(self, data: bytes) -> None:
            self.data = data.ljust(8192, b"\xff")

        def readblocks(self, block: int, buffer: bytearray, offset: int = 0) -> None:
            start = block * 4096 + offset
            buffer[:] = self.data[start : start + len(buffer)]

        def ioctl(self, command: int, argument: int) -> int:
            return {4: 2, 5: 4096}[command]

    who = provision.identity(1)
    record = provision.copies(
        provision.record(who, provision.Endpoint("127.0.0.1", 99), provision.root_spki())
    )
    read = identity.load(Region(record), {}, None)
    assert (read.site, read.device, read.table, read.port) == ("demo", "t-0001", "1", 99)


def test_there_is_no_ninth_terminal_and_no_zeroth() -> None:
    for number in (0, len(provision.key_pool()) + 1):
        with pytest.raises(BenchError, match="device keys"):
            provision.identity(number)


def test_passwords_and_keys_do_not_show_in_a_repr() -> None:
    assert "PRIVATE" not in repr(provision.identity(1))


def test_the_root_of_the_fixtures_is_the_one_provisioned() -> None:
    assert provision.root_spki() == (FIXTURE_KEYS / "root.spki.der").read_bytes()


def test_boot_options_travel_as_magic_length_and_json() -> None:
    blob = qemu.efuse({"host": "10.0.2.2", "port": 1883})
    assert blob[:4] == b"TSEF"
    assert int.from_bytes(blob[4:8], "big") == len(blob) - 8
    assert json.loads(blob[8:]) == {"host": "10.0.2.2", "port": 1883}


def test_an_unknown_board_is_named_with_those_there_are() -> None:
    with pytest.raises(BenchError, match="qemu, process"):
        catalogue.kind("toaster")


def test_a_missing_emulator_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BenchError, match=r"qemu-system-riscv32 \(run ci/setup\)"):
        catalogue.firmware_for("qemu", print)


def test_an_esp32_without_a_port_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--port"):
        catalogue.make(catalogue.BoardRequest("esp32"), None, "x", tmp_path)


def test_a_port_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    board = catalogue.make(catalogue.BoardRequest("esp32", str(tmp_path / "ttyUSB9")), None, "x", tmp_path)
    try:
        with pytest.raises(BenchError, match=r"ttyUSB9.*--port"):
            board.power.on()
    finally:
        board.close()


# ---------------------------------------------------------------- console


class Line:
    """A console and the board's end of its wire."""

    def __init__(self) -> None:
        ours, self.board = socket.socketpair()
        self.console = Console("dut")
        self.console.attach(SocketWire(ours))

    def close(self) -> None:
        self.board.close()
        self.console.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    try:
        yield made
    finally:
        made.close()


def test_an_answer_finds_its_question_whatever_lies_between(line: Line) -> None:
    number = line.console.post("info")
    line.board.sendall(b'words\r\n@online {"sid":"ab"}\r\n=%s {"ok":true,"n":1}\r\n' % number.encode())
    assert line.console.answer(number, "info")["n"] == 1
    assert line.console.event("online").data == {"sid": "ab"}
    assert line.board.recv(100) == b'!1 {"do":"info"}\n'


def test_a_refusal_keeps_the_terminals_code_and_words(line: Line) -> None:
    number = line.console.post("order")
    line.board.sendall(b'=%s {"ok":false,"error":"FULL","text":"the journal is full"}\n' % number.encode())
    with pytest.raises(RpcRefused) as refusal:
        line.console.answer(number, "order")
    assert (refusal.value.code, refusal.value.text) == ("FULL", "the journal is full")


def test_a_line_torn_by_a_cut_is_text_not_an_event(line: Line) -> None:
    line.board.sendall(b'@queued {"op":"00\r\n@ready {}\r\n')
    assert line.console.event("ready").index == 0


def test_events_before_the_mark_are_not_news(line: Line) -> None:
    line.board.sendall(b'@session {"sid":"1"}\n')
    line.console.event("session")
    since = line.console.mark()
    with pytest.raises(DeadlinePassed):
        line.console.event("session", since=since, deadline_s=0.05)
    line.board.sendall(b'@session {"sid":"2"}\n')
    assert line.console.event("session", since=since).data["sid"] == "2"


def test_a_wait_ends_when_the_board_goes_away(line: Line) -> None:
    line.board.sendall(b"last words\r\n")
    line.console.expect("last words")
    line.board.close()
    with pytest.raises(ConsoleClosed, match="last words"):
        line.console.event("ready", deadline_s=30)


def test_what_was_expected_once_is_behind(line: Line) -> None:
    line.board.sendall(b">>> ")
    line.console.expect(">>> ")
    with pytest.raises(DeadlinePassed):
        line.console.expect(">>> ", 0.05)


def test_the_transcript_runs_on_over_power_cycles(line: Line) -> None:
    line.board.sendall(b"first\n")
    line.console.expect("first")
    line.board.close()
    line.console.drain()
    ours, line.board = socket.socketpair()
    line.console.attach(SocketWire(ours))
    line.board.sendall(b"second\n")
    line.console.expect("second")
    assert line.console.transcript == "first\nsecond\n"
