"""The storage modules on real MicroPython and real littlefs2, with the power failing at flash steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_menu import frame, menu
from test_ota_agent import FILES, Bundle

ROOT = Path(__file__).parents[3]
SCRIPTS = Path(__file__).parent / "scripts"


def machines() -> list[Path]:
    """The MicroPython of the environment, and the newest process image if one was built here."""
    images = sorted(ROOT.glob("build/images/process-*/micropython"), key=lambda path: path.stat().st_mtime)
    return [Path(sys.executable).parent / "micropython", *images[-1:]]


@pytest.fixture(params=machines(), ids=lambda path: path.parent.name)
def machine(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


def run(machine: Path, script: str, *arguments: str | Path) -> str:
    """Return what a script prints; it must end well."""
    command = [str(machine), "-X", "heapsize=4m", str(SCRIPTS / script), str(ROOT / "firmware")]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("ok "), done.stdout
    return last


def test_journal_and_counters_survive_cuts_on_micropython(machine: Path) -> None:
    run(machine, "storage_cuts.py", "3")


def test_a_menu_update_is_all_or_nothing_on_littlefs(machine: Path, tmp_path: Path) -> None:
    items = [[n + 1, 1, f"Item number {n}", 100 + n, 1, [1] if n % 3 else []] for n in range(150)]
    dearer = [
        [item, group, f"{name}!", price + 5, tax, extra] for item, group, name, price, tax, extra in items
    ]
    (tmp_path / "old.bin").write_bytes(frame(menu(1, items=items)))
    (tmp_path / "new.bin").write_bytes(frame(menu(2, items=dearer)))
    assert run(machine, "menu_cuts.py", tmp_path, "3").endswith(" 1 new")


def test_an_update_converges_whenever_the_power_fails(machine: Path, tmp_path: Path) -> None:
    for name, version in (("old", 0x100), ("new", 0x200)):
        files = FILES | {"terminal/version.py": b"VERSION = %d\n" % version}
        bundle = Bundle(files, version=version, floor=version)
        (tmp_path / f"{name}.offer").write_bytes(bundle.offer)
        (tmp_path / f"{name}.bin").write_bytes(bundle.data)
    run(machine, "ota_cuts.py", tmp_path, "7", "1")
