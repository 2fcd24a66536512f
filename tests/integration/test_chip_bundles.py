"""Bundles for ESP32 chips, whose application lies in files and not in the image.

No chip is at hand: what is real here is the compiler's output for both processors, the chip's application as
it is flashed, littlefs2, and MicroPython with the loader out of that application. The modules that are run
are bytecode, which is the same for every processor; the factory application's native ones are this host's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import frozen, images, releases
from bench.esp32 import application
from bench.esp32.layout import CHIPS, Chip
from server.releases.bundle import Bundle as Release
from server.releases.bundle import Target
from server.releases.code import architecture_of
from server.releases.images import MODULES_FILE

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "firmware"), str(ROOT / "tests" / "unit" / "device_storage")]

from terminal import regions  # noqa: E402
from terminal.ota import fits, states  # noqa: E402
from test_slot_boot import Flash  # noqa: E402

CHIP_CLASSES = {"esp32": "esp32-xtensawin", "esp32s3": "esp32-xtensawin", "esp32c3": "esp32-rv32imc"}
HOST = Chip("host", 0, 0, "x64")
IMAGE = releases.image_release()
VERSION = IMAGE + 1
OWN = {"esp32-xtensawin": 6 | (3 | 10 << 2) << 8, "esp32-rv32imc": 6 | (3 | 11 << 2) << 8}

# What the chip's board.py and main.py do, on a flash file.
CHIP = """
import os, sys, vfs
data = bytearray(open(sys.argv[1], "rb").read())
regions = eval(sys.argv[2])

class Region:
    def __init__(self, start, size):
        self.start, self.size = start, size
    def readblocks(self, block, buf, offset=0):
        at = self.start + block * 4096 + offset
        buf[:] = data[at : at + len(buf)]
    def writeblocks(self, block, buf, offset=None):
        if offset is None:
            self.ioctl(6, block)
        at = self.start + block * 4096 + (offset or 0)
        for n, byte in enumerate(buf):
            data[at + n] &= byte
    def ioctl(self, op, arg):
        if op == 6:
            data[self.start + arg * 4096 : self.start + (arg + 1) * 4096] = bytes([255]) * 4096
            return 0
        return {4: self.size // 4096, 5: 4096}.get(op, 0)

class Board:
    root, hardware, mounted, on_trial, update_pending = "", "esp32-xtensawin", [1], False, False
    random = os.urandom
    def region(self, name):
        return Region(*regions[name])
    def options(self):
        return {"watchdog_ms": 0}
    def reset_cause(self):
        return 1
    def reset(self):
        print("reset")

vfs.umount("/")
vfs.mount(vfs.VfsLfs2(Region(*regions["vfs"]), mtime=False), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen"]
from terminal.ota import loader
loader.main(Board())
"""
FACTORY = b"def main(board, slot):\n    print('started', slot)\n"
PROBE = """

def main(board, slot):
    import sys
    import terminal.ota.agent
    import terminal.ota.rotation
    print("started", slot, VERSION)
    for name in sorted(sys.modules):
        if name.startswith("terminal."):
            print("module", name, sys.modules[name].__file__)
"""


def chip_bundle(hardware: str, changed: dict[str, str], image: bytes | None = None) -> Release:
    content = releases.files(releases.versioned(VERSION, changed), hardware, image=image)
    return releases.bundle(Target(hardware, VERSION, 0, IMAGE, IMAGE), content)


# ---------------------------------------------------------------- what is built


@pytest.mark.parametrize("chip", CHIP_CLASSES)
def test_a_bundle_for_a_chip_carries_that_processors_code_and_finds_the_rest_there(chip: str) -> None:
    hardware = CHIP_CLASSES[chip]
    march = CHIPS[chip].mpy_architecture
    bundle = chip_bundle(hardware, {"terminal.wire.fast": releases._source("terminal.wire.fast") + "A = 1\n"})
    heads = {path: body[:4] for path, body in bundle.files.items() if path.endswith(".mpy")}
    kinds = {path: architecture_of(head) for path, head in heads.items()}
    assert kinds["terminal/version.mpy"] == "bytecode"
    assert march in kinds.values()
    assert set(kinds.values()) == {"bytecode", march}
    for own_class, own in OWN.items():
        assert all(fits.is_loadable(head, own) for head in heads.values()) == (own_class == hardware)
    on_chip = application.sources(None)
    for line in bundle.files[MODULES_FILE].decode().splitlines():
        place, name = line.split()
        stem = name.replace(".", "/")
        paths = {f"{stem}.py", f"{stem}/__init__.py"}
        if place == "image":
            assert paths & set(on_chip), f"{name} is not on the chip"
        else:
            assert {path.replace(".py", ".mpy") for path in paths} & set(bundle.files), name


def test_a_chip_knows_its_image_by_the_digest_its_bundles_name() -> None:
    trust: dict[str, Any] = {}
    for with_agent in (False, True):  # the bench's own modules do not make it another image
        exec(application.sources(b"key", with_agent=with_agent)[frozen.TRUST], trust)
        assert trust["ROOT_SPKI"] == b"key"
        assert trust["IMAGE"] == releases.checkout_digest("esp32-xtensawin")
        assert trust["IMAGE"] == releases.checkout_digest("esp32-rv32imc")
        assert trust["IMAGE"] != releases.checkout_digest("process")


# ---------------------------------------------------------------- what runs


def start(tmp_path: Path, make: Any) -> str:
    """Flash a chip's application with a bundle armed in slot a, start it -> what it prints."""
    factory = application.sources(b"root") | {"terminal/app.py": FACTORY}
    factory[frozen.TRUST] = frozen.trust(factory, b"root")
    release: Release = make(frozen.digest(factory))
    flash = Flash(tmp_path / "flash.bin")
    factory = {path: body for path, body in factory.items() if path.startswith("terminal/")}
    for path, body in application.compile_files(factory, images.mpy_cross(), HOST).items():
        flash.fs.makedirs(str(Path("/", path).parent), exist_ok=True)
        with flash.fs.open(f"/{path}", "wb") as file:
            file.write(body)
    named: Any = SimpleNamespace(frame=release.offer.manifest_frame)
    flash.install("a", named, release.files)
    state = states.staging(states.factory(), release.hash, VERSION, 0)
    flash.record.store(states.armed(states.verified(state)))
    flash.save()
    script = tmp_path / "chip.py"
    script.write_text(CHIP)
    places = {name: regions.find(name) for name in (regions.VFS, regions.CONTROL)}
    machine = Path(sys.executable).with_name("micropython")
    done = subprocess.run(
        [machine, "-X", "heapsize=16m", script, flash.path, repr(places)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_bundle_overlays_an_application_that_lies_in_files(tmp_path: Path) -> None:
    changed = {"terminal.app": releases._source("terminal.app") + PROBE}
    console = start(tmp_path, lambda image: chip_bundle("esp32-xtensawin", changed, image))
    assert f"started a {VERSION}" in console, console
    places = dict(line.split()[1:] for line in console.splitlines() if line.startswith("module "))
    slot = {name for name, place in places.items() if place.startswith("/slot/a/app/")}
    assert slot == {"terminal.app", "terminal.version"}
    others = {name: place for name, place in places.items() if name not in slot}
    assert {"terminal.menu", "terminal.wire.fast", "terminal.ota.agent", "terminal.ota.rotation"} <= set(
        others
    )
    for name, place in others.items():
        assert place.lstrip("/").removesuffix("/__init__.mpy").removesuffix(".mpy") == name.replace(".", "/")


def test_a_bundle_made_over_another_application_of_the_same_number_does_not_start(tmp_path: Path) -> None:
    console = start(tmp_path, lambda image: chip_bundle("esp32-xtensawin", {}, bytes(32)))
    assert "[loader] rolled-back: slot-bad" in console, console
    assert "started factory" in console
