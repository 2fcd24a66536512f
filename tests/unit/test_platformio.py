"""platformio.ini is a second face of the bench's boards: it must not drift from the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.boards.catalogue import KINDS
from bench.esp32.layout import CHIPS, PARTITIONS_CSV
from bench.paths import ROOT

PIO = Path(sys.executable).with_name("pio")


@pytest.fixture(scope="module")
def pio_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Neither the user's PlatformIO nor the network is touched."""
    core = tmp_path_factory.mktemp("pio")
    return os.environ | {
        "PLATFORMIO_CORE_DIR": str(core),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "CI": "1",
    }


@pytest.fixture(scope="module")
def project(pio_environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Section -> option -> value, as PlatformIO understands the file."""
    text = pio("--json-output", environment=pio_environment)
    return {section: dict(options) for section, options in json.loads(text)}


def pio(*arguments: str, environment: dict[str, str]) -> str:
    command = [str(PIO), "project", "config", "-d", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def boards(project: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name.removeprefix("env:"): options for name, options in project.items() if name.startswith("env:")
    }


def test_platformio_finds_no_fault_and_no_unknown_option(pio_environment: dict[str, str]) -> None:
    said = pio("--lint", environment=pio_environment)
    assert "free from linting errors" in said
    assert "warning" not in said.lower(), said


def test_the_environments_are_the_boards_of_the_bench(project: dict[str, dict[str, Any]]) -> None:
    runnable = {name for name, kind in KINDS.items() if kind.runs}
    assert set(boards(project)) == runnable | {"esp32"}


def test_the_real_board_names_a_chip_and_the_partitions_that_exist(
    project: dict[str, dict[str, Any]],
) -> None:
    esp32 = boards(project)["esp32"]
    assert esp32["custom_chip"] in CHIPS
    assert ROOT / esp32["custom_partitions"] == PARTITIONS_CSV
    assert PARTITIONS_CSV.is_file()


def test_every_file_the_project_names_exists(project: dict[str, dict[str, Any]]) -> None:
    platform = project["env"]["platform"].removeprefix("symlink://")
    scripts = [script.removeprefix("post:") for script in project["env"]["extra_scripts"]]
    for path in (f"{platform}/platform.json", f"{platform}/builder/main.py", *scripts):
        assert (ROOT / path).is_file(), path


def test_the_targets_call_commands_that_exist() -> None:
    """What targets.py would run is accepted by the command line, up to the missing port."""
    from bench.cli.main import build_parser

    recorded: list[list[str]] = []

    class Environment(dict[str, str]):
        def GetProjectOption(self, name: str) -> str:
            return {"custom_chip": "esp32c3"}[name]

        def AddCustomTarget(self, *, actions: list[list[str]], **_: object) -> None:
            recorded.extend(actions)

    script = (ROOT / "firmware/boards/esp32/pio/targets.py").read_text(encoding="utf-8")
    for board in ("qemu", "process", "esp32"):
        names = {"Import": lambda _name: None, "env": Environment(PIOENV=board)}
        exec(compile(script, "targets.py", "exec"), names)  # it is our own file
    assert len(recorded) >= 5
    for command in recorded:
        assert command[:3] == ["$PYTHONEXE", "-m", "bench.cli.main"]
        words = [
            {"$UPLOAD_PORT": "/dev/null", "$UPLOAD_SPEED": "115200"}.get(word, word) for word in command[3:]
        ]
        assert callable(build_parser().parse_args(words).run), words
