"""The loader on a real image: what a slot holds runs, nothing of the image mixes in, and failure comes home.

The flash is prepared on the host (littlefs, control record), the process image boots it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from littlefs import LittleFS

from bench import images

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "firmware"), str(ROOT / "tests" / "unit" / "device_storage")]

from boards.host.nor import Nor  # noqa: E402
from terminal import regions  # noqa: E402
from terminal.ota import states  # noqa: E402
from terminal.ota.record import ControlRecord  # noqa: E402
from terminal.ota.states import State  # noqa: E402
from test_ota_agent import Bundle  # noqa: E402

RESET = 121
PROBE = b"""
import sys
import terminal
place = terminal.__path__
def main(board, slot):
    print("slot", slot, "of", place, "first", sys.path[0])
    print("loaded", sorted(n for n in sys.modules if n.split(".")[0] == "terminal"))
    from terminal.trust import ROOT_SPKI
    print("root", len(ROOT_SPKI))
    try:
        import terminal.menu
        print("mixed")
    except ImportError:
        print("pure")
"""


@pytest.fixture(scope="module")
def image() -> Path:
    return images.build("process").path


class Flash:
    """The flash file of a terminal, written while it is off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nor = Nor(regions.FLASH_BYTES)
        offset, size = regions.find(regions.VFS)
        self.vfs = slice(offset, offset + size)
        self.fs = LittleFS(
            block_size=4096, block_count=size // 4096, read_size=32, prog_size=32, lookahead_size=32
        )
        self.record = ControlRecord(self.nor.region(*regions.find(regions.CONTROL)))

    def install(self, slot: str, bundle: Bundle, files: dict[str, bytes]) -> None:
        for path, body in {"manifest": bundle.frame, **{f"app/{p}": b for p, b in files.items()}}.items():
            place = f"/slot/{slot}/{path}"
            self.fs.makedirs(os.path.dirname(place), exist_ok=True)
            with self.fs.open(place, "wb") as file:
                file.write(body)

    def save(self) -> None:
        self.nor.data[self.vfs] = self.fs.context.buffer
        self.path.write_bytes(self.nor.data)

    def state(self) -> State:
        now = Nor(regions.FLASH_BYTES, self.path.read_bytes())
        return ControlRecord(now.region(*regions.find(regions.CONTROL))).state


def boot(image: Path, flash: Flash, keep_power: bool = False) -> tuple[str, int]:
    """Start the terminal on this flash -> (console, exit code)."""
    if not keep_power:
        Path(f"{flash.path}.rtc").unlink(missing_ok=True)
    environment = {**os.environ, "TABLESIDE_FLASH": str(flash.path), "TABLESIDE_BOOT": "{}"}
    done = subprocess.run(
        [str(image)], input=b"", capture_output=True, env=environment, timeout=30, check=False
    )
    return done.stdout.decode() + done.stderr.decode(), done.returncode


@pytest.fixture
def flash(tmp_path: Path) -> Flash:
    return Flash(tmp_path / "flash.bin")


def bundle_of(main: bytes) -> tuple[Bundle, dict[str, bytes]]:
    files = {"terminal/__init__.py": b"", "terminal/app.py": main}
    return Bundle(files, version=0x200, hardware="process", firmware=(0, 0xFFFFFFFF)), files


def confirmed(bundle: Bundle) -> State:
    return states.factory().but(slot=states.SLOT_A, version=0x200, hash=bundle.digest)


def armed(bundle: Bundle) -> State:
    return states.armed(states.verified(states.staging(states.factory(), bundle.digest, 0x200, 0)))


def test_a_slot_shadows_the_frozen_package_completely(image: Path, flash: Flash) -> None:
    bundle, files = bundle_of(PROBE)
    flash.install("a", bundle, files)
    flash.record.store(confirmed(bundle))
    flash.save()
    console, _ = boot(image, flash)
    assert "slot a of /slot/a/app/terminal first /slot/a/app" in console
    assert "loaded ['terminal', 'terminal.app', 'terminal.trust']" in console
    assert "root 422" in console
    assert "pure" in console
    assert "mixed" not in console


def test_the_factory_application_runs_when_a_file_of_the_slot_changed(image: Path, flash: Flash) -> None:
    bundle, files = bundle_of(PROBE)
    flash.install("a", bundle, files | {"terminal/app.py": PROBE + b"#"})
    flash.record.store(confirmed(bundle))
    flash.save()
    console, _ = boot(image, flash)
    assert "[loader] confirmed: both-bad" in console
    assert '"slot": "factory"' in console
    assert flash.state().slot == states.FACTORY


@pytest.mark.parametrize("slot", ["factory", "a"])
def test_nothing_else_in_the_file_system_is_ever_imported(image: Path, flash: Flash, slot: str) -> None:
    for path in ("boot.py", "main.py", "json.py", "asyncio.py", "terminal/ota/loader.py", "lib/struct.py"):
        flash.fs.makedirs(os.path.dirname(f"/{path}"), exist_ok=True)
        with flash.fs.open(f"/{path}", "wb") as file:
            file.write(b"print('a stray module runs')\n")
    if slot == "a":
        bundle, files = bundle_of(PROBE + b"    import asyncio, json, struct\n    print('done')\n")
        flash.install("a", bundle, files)
        flash.record.store(confirmed(bundle))
    flash.save()
    console, _ = boot(image, flash)
    assert ('"slot": "factory"' if slot == "factory" else "done") in console
    assert "stray" not in console


@pytest.mark.parametrize(
    "main",
    [
        b"def main(board, slot):\n    raise ValueError(slot)\n",
        b"import nothing\n",
        b"def main(",
        b"def main(b, s): pass",
    ],
    ids=["raises", "cannot be imported", "is no Python", "just ends"],
)
def test_an_application_that_dies_on_trial_is_rolled_back_after_three_tries(
    image: Path, flash: Flash, main: bytes
) -> None:
    bundle, files = bundle_of(main)
    flash.install("a", bundle, files)
    flash.record.store(armed(bundle))
    flash.save()
    for turn in range(3):
        _, code = boot(image, flash, keep_power=turn > 0)
        assert code == RESET
        assert flash.state().tries == turn
    console, _ = boot(image, flash, keep_power=True)
    assert "[loader] rolled-back: tries-spent" in console
    assert '"slot": "factory"' in console
    assert flash.state().is_quarantined(bundle.digest)


DYING = b"def main(board, slot):\n    raise ValueError(slot)\n"


def test_a_confirmed_application_that_never_lasts_gives_way_to_the_one_before_and_that_to_the_factory(
    image: Path, flash: Flash
) -> None:
    new, new_files = bundle_of(DYING)
    old, old_files = bundle_of(DYING + b"#")
    flash.install("a", new, new_files)
    flash.install("b", old, old_files)
    flash.record.store(confirmed(new).but(other_hash=old.digest, other_version=0x100, floor=0x100))
    flash.save()
    consoles = []
    for turn in range(2 * (1 + states.MAX_CRASHES)):
        console, code = boot(image, flash, keep_power=turn > 0)
        assert code == RESET
        consoles.append(console)
    assert ["ValueError: a" in console for console in consoles] == [True] * 6 + [False] * 6
    assert "[loader] confirmed: crash-loop" in consoles[6]
    assert "ValueError: b" in consoles[6]
    assert flash.state().version == 0x100
    console, _ = boot(image, flash, keep_power=True)
    assert '"slot": "factory"' in console
    after = flash.state()
    assert (after.slot, after.reason, after.floor) == (states.FACTORY, states.CRASH_LOOP, 0x100)
    assert after.is_quarantined(new.digest)
    assert after.is_quarantined(old.digest)


def test_the_power_going_is_not_held_against_a_confirmed_application(image: Path, flash: Flash) -> None:
    bundle, files = bundle_of(DYING)
    flash.install("a", bundle, files)
    flash.record.store(confirmed(bundle))
    flash.save()
    for _ in range(2 * states.MAX_CRASHES):
        boot(image, flash)
    assert flash.state() == confirmed(bundle)


def test_a_record_with_a_reason_of_a_later_application_starts(image: Path, flash: Flash) -> None:
    bundle, files = bundle_of(PROBE)
    flash.install("a", bundle, files)
    flash.record.store(confirmed(bundle).but(reason=99))
    flash.save()
    console, _ = boot(image, flash)
    assert "[loader] confirmed: reason 99" in console
    assert "slot a of" in console


def test_a_fat_volume_is_refused_and_left_alone(image: Path, flash: Flash) -> None:
    flash.save()
    data = bytearray(flash.path.read_bytes())
    fat = bytearray(flash.vfs.stop - flash.vfs.start)
    fat[510:512] = b"\x55\xaa"  # a boot sector, then empty tables
    data[flash.vfs] = fat
    flash.path.write_bytes(data)
    before = hashlib.sha256(data).digest()
    console, _ = boot(image, flash)
    assert "the terminal does not start on this file system" in console
    assert hashlib.sha256(flash.path.read_bytes()).digest() == before
