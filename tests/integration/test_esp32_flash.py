"""From a published MicroPython image to a flashed chip: real image and esptool, a mock of the chip's ROM."""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import io
import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest
from esp32_images import C3 as IMAGE
from esp32_images import published
from esp32_mock_bootloader import MockHandle, mock_bootloader
from esp_idf_defs.partitions import PartitionTable
from esptool import cmds
from esptool.bin_image import LoadFirmwareImage

from bench.cli.main import main
from bench.errors import BenchError
from bench.esp32 import application, flash, provision
from bench.esp32.build import OUTPUT, Build, build, load, read_part, split_micropython
from bench.esp32.layout import CHIPS, TABLE_OFFSET, flash_mb_of_image, load_layout
from bench.paths import FIXTURE_KEYS
from bench.provision import Endpoint

C3 = CHIPS["esp32c3"]
ROOT_KEY = (FIXTURE_KEYS / "root.pub.der").read_bytes()


def silent(_text: str) -> None:
    """Progress for nobody."""


@pytest.fixture(scope="module")
def micropython_image() -> bytes:
    """A real MicroPython 1.27 image for the C3."""
    return published(IMAGE)


@pytest.fixture(scope="module")
def made(micropython_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Build:
    micropython = split_micropython(micropython_image, IMAGE)
    out = tmp_path_factory.mktemp("esp32")
    return build(C3, micropython=micropython, root_key=ROOT_KEY, out=out, progress=silent)


@pytest.fixture
def chip() -> Iterator[MockHandle]:
    with mock_bootloader("esp32c3") as handle:
        assert handle._session is not None
        process = handle._session.proc
        yield handle
    assert process is not None
    assert process.stderr is not None
    process.stderr.close()  # the package leaves this pipe open


def segments_of(made: Build, *names: str) -> list[flash.Segment]:
    return [
        (part.name, part.offset, read_part(made, part))
        for part in made.parts
        if not names or part.name in names
    ]


def write(
    chip: MockHandle, segments: list[flash.Segment], target: str = "esp32c3", *, force: bool = True
) -> int:
    """The mock's chip is of revision 0.0, older than any real one: hence `force`."""
    line = flash.Line(chip.url(), stub=False)
    return flash.flash(line, CHIPS[target], segments, erase=False, force=force, progress=silent)


def read_back(chip: MockHandle, offset: int, size: int) -> bytes:
    """What the chip holds, read by esptool without our code."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        cmds.detect_chip(chip.url(), connect_mode="no-reset") as esp,
    ):
        cmds.attach_flash(esp)
        return bytes(cmds.read_flash(esp, offset, size))


def test_a_build_holds_everything_an_empty_chip_needs(made: Build, micropython_image: bytes) -> None:
    layout = load_layout()
    parts = {part.name: part for part in made.parts}
    assert list(parts) == ["bootloader", "partitions", "otadata", "image", "micropython", "vfs"]
    assert parts["micropython"].offset == layout["ota_0"].offset
    assert read_part(made, parts["micropython"]) == micropython_image[0x10000:]
    table = PartitionTable.from_binary(read_part(made, parts["partitions"]))
    table.verify()
    assert {"control", "counters", "identity", "journal", "image", "vfs", "ota_0", "ota_1"} <= {
        row.name for row in table
    }
    assert made.merged is not None
    merged = read_part(made, made.merged)
    for part in made.parts:
        start = part.offset - made.merged.offset
        assert hashlib.sha256(merged[start : start + part.size]).hexdigest() == part.sha256, part.name


def test_two_builds_of_the_same_sources_are_the_same_bytes(
    made: Build, micropython_image: bytes, tmp_path: Path
) -> None:
    micropython = split_micropython(micropython_image, IMAGE)
    again = build(C3, micropython=micropython, root_key=ROOT_KEY, out=tmp_path, progress=silent)
    assert again.parts == made.parts
    assert again.merged == made.merged


def test_micropython_mounts_the_file_system_and_imports_the_application(made: Build, tmp_path: Path) -> None:
    script = tmp_path / "mount.py"
    script.write_text(MOUNT_SCRIPT)
    interpreter = Path(sys.executable).with_name("micropython")
    command = [str(interpreter), str(script), str(made.folder / "vfs.bin")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen["journal"] == 0x10000
    assert seen["root_bytes"] == 422
    assert {"boot.py", "main.py", "board.mpy", "terminal"} <= set(seen["files"])
    assert "agent.mpy" not in seen["terminal"], "the bench's agent must not reach a restaurant"
    assert "campaign.mpy" not in seen["files"]


MOUNT_SCRIPT = """
import json, os, sys, vfs

class Rom:
    def __init__(self, path):
        with open(path, "rb") as handle:
            self.data = bytearray(handle.read())
    def readblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        buffer[:] = self.data[at:at + len(buffer)]
    def writeblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        self.data[at:at + len(buffer)] = buffer
    def ioctl(self, op, argument):
        if op == 4:
            return len(self.data) // 4096
        if op == 5:
            return 4096
        return 0

vfs.mount(vfs.VfsLfs2(Rom(sys.argv[1])), "/chip")
sys.path[:] = ["/chip", ".frozen"]
from terminal import regions, trust
print(json.dumps({
    "journal": regions.find("journal")[1],
    "root_bytes": len(trust.ROOT_SPKI),
    "files": os.listdir("/chip"),
    "terminal": os.listdir("/chip/terminal"),
}))
"""


def test_an_empty_chip_is_flashed_and_holds_what_was_built(chip: MockHandle, made: Build) -> None:
    assert write(chip, segments_of(made)) == sum(part.size for part in made.parts)
    for part in made.parts:
        head = read_part(made, part)[:4096]
        assert read_back(chip, part.offset, len(head)) == head, part.name


def test_the_stub_writes_the_same_bytes(chip: MockHandle, made: Build) -> None:
    segments = segments_of(made, "vfs")
    line = flash.Line(chip.url(), stub=True)
    flash.flash(line, C3, segments, erase=False, force=True, progress=silent)
    name, offset, data = segments[0]
    with flash.connected(flash.Line(chip.url(), stub=False), C3, silent) as writer:
        assert writer.holds(offset, data), name
        assert not writer.holds(offset, data[:-1] + bytes([data[-1] ^ 1]))


def test_flashing_again_keeps_identity_and_journal(chip: MockHandle, made: Build) -> None:
    layout = load_layout()
    learned = {name: name.encode() * 64 for name in ("control", "counters", "identity", "journal")}
    write(chip, [(name, layout[name].offset, data) for name, data in learned.items()])
    write(chip, segments_of(made))
    for name, data in learned.items():
        assert read_back(chip, layout[name].offset, len(data)) == data, name


def test_the_wrong_chip_is_refused_before_anything_is_written(chip: MockHandle, made: Build) -> None:
    with pytest.raises(BenchError) as refused:
        write(chip, segments_of(made), target="esp32s3")
    assert refused.value.code == "WRONG_CHIP"
    assert "ESP32-C3" in refused.value.text
    assert read_back(chip, TABLE_OFFSET, 4096) == b"\xff" * 4096


def test_an_older_chip_revision_needs_force(chip: MockHandle, made: Build) -> None:
    with pytest.raises(BenchError) as refused:
        write(chip, segments_of(made, "bootloader"), force=False)
    assert refused.value.code == "OLD_CHIP"
    assert "--force" in refused.value.text


@pytest.mark.parametrize("url", ["/dev/ttyThatIsNotThere", "socket://127.0.0.1:1", "nonsense://x"])
def test_a_port_that_cannot_be_opened_is_named(made: Build, url: str) -> None:
    with pytest.raises(BenchError) as refused:
        flash.flash(flash.Line(url), C3, segments_of(made), erase=False, force=False, progress=silent)
    assert refused.value.code == "NO_PORT"
    assert url in refused.value.text
    assert "--port" in refused.value.text


def test_a_provisioned_chip_carries_its_identity_and_the_server_gets_the_public_half(
    chip: MockHandle, made: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(provision, "DEVICES", tmp_path)
    write(chip, segments_of(made, "partitions"))
    order = provision.Order("demo", "t-0042", "7", Endpoint("192.0.2.1", 1883), ROOT_KEY)
    done = provision.provision(flash.Line(chip.url(), stub=False), "esp32c3", order, silent)
    held = read_back(chip, load_layout()["identity"].offset, 0x2000)
    assert held[:4] == b"TSID"
    size = int.from_bytes(held[4:8], "big")
    body = held[8 : 8 + size]
    assert int.from_bytes(held[8 + size : 12 + size], "big") == binascii.crc32(body)
    assert held[0x1000 : 0x100C + size] == held[: 12 + size], "each of the two sectors holds the record"
    assert set(held[12 + size : 0x1000] + held[0x100C + size :]) == {0xFF}
    version, site, device, table, password, host, port, root, key = cbor2.loads(body)
    assert (version, site, device, table, host, port) == (1, "demo", "t-0042", "7", "192.0.2.1", 1883)
    assert root == ROOT_KEY
    assert key[0] in done.spki_path.read_bytes(), "the public key on disk is not the chip's"
    assert password in done.register_command
    assert list(tmp_path.iterdir()) == [done.spki_path], "nothing but the public key stays on this machine"


def test_an_unflashed_chip_is_not_provisioned(chip: MockHandle) -> None:
    order = provision.Order("demo", "t-0042", "7", Endpoint("192.0.2.1", 1883), ROOT_KEY)
    with pytest.raises(BenchError) as refused:
        provision.provision(flash.Line(chip.url(), stub=False), "esp32c3", order, silent)
    assert refused.value.code == "NO_TABLE"
    assert "firmware flash" in refused.value.text


def test_an_image_of_something_else_is_refused(micropython_image: bytes) -> None:
    for image, code in (
        (b"MZ not an image".ljust(4096, b"\0"), "BAD_IMAGE"),
        (b"", "BAD_IMAGE"),
        (micropython_image[0x10000:], "BAD_IMAGE"),  # the application part alone
        (micropython_image[:12] + b"\x63\x00" + micropython_image[14:], "UNKNOWN_CHIP"),
    ):
        with pytest.raises(BenchError) as refused:
            split_micropython(image, "test image")
        assert refused.value.code == code


def test_a_changed_build_is_not_flashed(made: Build) -> None:
    vfs = made.folder / "vfs.bin"
    original = vfs.read_bytes()
    vfs.write_bytes(original[:-1] + b"\0")
    try:
        with pytest.raises(BenchError) as refused:
            load(made.folder)
    finally:
        vfs.write_bytes(original)
    assert refused.value.code == "BAD_BUILD"
    assert load(made.folder).parts == made.parts


def test_the_settings_reach_the_chip_and_must_name_a_wifi(tmp_path: Path) -> None:
    settings = b'{"wifi": {"ssid": "guests", "key": "throw-away"}}'
    assert application.settings_file(settings, "wifi.json") == settings
    made = build(C3, micropython=None, root_key=ROOT_KEY, settings=settings, out=tmp_path, progress=silent)
    assert (made.folder / "application" / "settings.json").read_bytes() == settings
    assert settings in read_part(made, made.parts[1])
    for broken in (b"", b"[]", b'{"wifi": {}}', b'{"wifi": {"ssid": "", "key": ""}}', b"\xff"):
        with pytest.raises(BenchError) as refused:
            application.settings_file(broken, "wifi.json")
        assert refused.value.code == "BAD_SETTINGS"


def test_a_larger_flash_gets_a_bootloader_that_knows_it(micropython_image: bytes, tmp_path: Path) -> None:
    micropython = split_micropython(micropython_image, IMAGE)
    made = build(C3, micropython=micropython, root_key=ROOT_KEY, flash_mb=8, out=tmp_path, progress=silent)
    parts = {part.name: part for part in made.parts}
    assert parts["vfs"].offset + parts["vfs"].size == 8 << 20
    assert flash_mb_of_image(micropython_image) == 4
    bootloader = read_part(made, parts["bootloader"])
    assert flash_mb_of_image(bootloader) == 8
    image = LoadFirmwareImage("esp32c3", bootloader)
    assert image.stored_digest == image.calc_digest
    assert made.merged is not None
    assert read_part(made, made.merged)[: len(bootloader)] == bootloader


def test_an_application_too_large_for_its_partition_is_refused() -> None:
    with pytest.raises(BenchError) as refused:
        application.littlefs_image({"large.bin": bytes(100_000)}, 65536)
    assert refused.value.code == "DOES_NOT_FIT"


def test_the_command_line_builds_and_flashes(
    chip: MockHandle, micropython_image: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "micropython.bin"
    image.write_bytes(micropython_image)
    assert main(["firmware", "build", "--board", "esp32", "--micropython", str(image)]) == 0
    assert "tableside-esp32c3.bin" in capsys.readouterr().out
    options = ["--port", chip.url(), "--no-stub", "--force"]
    assert main(["firmware", "flash", "--only", "vfs", *options]) == 0
    assert "verified" in capsys.readouterr().out
    written = load(OUTPUT / "esp32c3")
    (vfs,) = [part for part in written.parts if part.name == "vfs"]
    assert read_back(chip, vfs.offset, 4096) == read_part(written, vfs)[:4096]
    assert read_back(chip, TABLE_OFFSET, 32) == b"\xff" * 32, "only what was asked for is written"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["flash", "--port", "/dev/ttyThatIsNotThere", "--image", "/no/such/file"], "Cannot read the image"),
        (["flash", "--port", "/dev/null", "--chip", "esp8266"], "no flash layout for esp8266"),
        (
            ["build", "--board", "esp32", "--micropython", "/no/such/file"],
            "Cannot read the MicroPython image",
        ),
        (["monitor", "--port", "/dev/ttyThatIsNotThere"], "Cannot open /dev/ttyThatIsNotThere"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["firmware", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


def test_monitor_prints_what_a_chip_says() -> None:
    """A pseudo terminal is the port; its other end plays the chip."""
    chip_end, port_end = pty.openpty()
    command = [sys.executable, "-m", "bench.cli.main", "firmware", "monitor", "--port", os.ttyname(port_end)]
    monitor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert monitor.stdout is not None
    try:
        heard, deadline = b"", time.monotonic() + 60
        while b"la carta" not in heard:
            assert time.monotonic() < deadline, f"nothing more after {heard!r}"
            os.write(chip_end, b"ciao, sono la carta\n")  # again: opening a port drops what came before
            if select.select([monitor.stdout], [], [], 0.2)[0]:
                heard += os.read(monitor.stdout.fileno(), 1024)
                assert monitor.poll() is None, heard
    finally:
        monitor.kill()
        monitor.wait(timeout=10)
        monitor.stdout.close()
        os.close(chip_end)
        os.close(port_end)


def test_a_line_where_nothing_answers_says_how_to_enter_download_mode(made: Build) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        line = flash.Line(f"socket://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(BenchError) as refused:
            flash.flash(line, C3, segments_of(made, "vfs"), erase=False, force=False, progress=silent)
    assert refused.value.code == "NO_CHIP"
    assert "BOOT" in refused.value.text
