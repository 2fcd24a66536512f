"""The terminal as a service on a small Linux machine: real processes, signals and notification socket.

The test stands where systemd does: it starts the program, listens to what it says, kills it when it is
silent, and says afterwards how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import provision

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "firmware"), str(ROOT / "tests" / "unit" / "device_storage")]

from boards.host.flashfile import FlashFile  # noqa: E402
from boards.host.lastlife import LastLife  # noqa: E402
from terminal import regions  # noqa: E402
from terminal.ota import states  # noqa: E402
from terminal.ota.record import ControlRecord  # noqa: E402
from test_ota_agent import Bundle  # noqa: E402

DEADLINE_S = 20.0
POWER_ON, HARD, WATCHDOG, CRASH = 1, 2, 3, 4
RESET = 121
HANGING = (
    b"import json, time\n"
    b"def main(board, slot):\n"
    b"    print('@boot', json.dumps({'slot': slot, 'reset_cause': board.reset_cause()}), flush=True)\n"
    b"    time.sleep(60)\n"
)


class Service:
    """One start of the terminal, with somebody at the other end of its notification socket."""

    def __init__(self, state: Path, listener: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NOTIFY_SOCKET": str(listener or "")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "boards.host.pi", "--state", str(state)],
            cwd=ROOT / "firmware",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event on its console."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(f"@{name} "):
                return dict(json.loads(line.partition(" ")[2]))
        raise AssertionError(f"it ended with {self.process.wait(DEADLINE_S)}, without {name}")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, number: signal.Signals | None = None) -> int:
        """Send it a signal, if one is given, and wait for its end."""
        if number is not None:
            self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a provisioned terminal whose broker nobody ever reaches."""
    folder = tmp_path / "state"
    folder.mkdir()
    flash = FlashFile(str(folder / "flash.bin"))
    endpoint = provision.Endpoint("127.0.0.1", 9)
    data = provision.record(provision.identity(1), endpoint, provision.root_spki())
    flash.program(regions.find(regions.IDENTITY)[0], data)
    flash.close()
    return folder


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(DEADLINE_S)
        yield heard


def run(state: Path, number: signal.Signals) -> int:
    """Start it, wait until it runs, end it so -> the reset cause it told."""
    service = Service(state)
    cause = service.event("boot")["reset_cause"]
    service.end(number)
    return int(cause)


def after_a_power_cut(state: Path) -> None:
    """The next start is on a machine that was started anew."""
    _, _, word = (state / "lastlife").read_text().partition(" ")
    (state / "lastlife").write_text(f"another-boot-id {word}")


def test_each_end_of_the_process_is_told_apart_at_the_next_start(state: Path) -> None:
    assert run(state, signal.SIGKILL) == POWER_ON
    assert run(state, signal.SIGTERM) == CRASH
    assert run(state, signal.SIGKILL) == POWER_ON
    after_a_power_cut(state)
    service = Service(state)
    assert service.event("boot")["reset_cause"] == POWER_ON
    service.type('!1 {"do": "reboot"}')
    assert service.end() == RESET
    assert run(state, signal.SIGTERM) == HARD
    assert (state / "flash.bin").stat().st_mode & 0o077 == 0


def test_systemd_hears_that_it_lives_and_what_it_hung_in_is_told_at_the_next_start(
    state: Path, listener: socket.socket
) -> None:
    service = Service(state, Path(listener.getsockname()))
    heard = [listener.recv(200).decode() for _ in range(4)]
    assert heard == ["READY=1", "WATCHDOG_USEC=8000000\nWATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
    service.process.send_signal(signal.SIGSTOP)  # it hangs
    service.end(signal.SIGKILL)
    ended = [sys.executable, "-m", "boards.host.pi", "--state", str(state), "--ended", "watchdog"]
    subprocess.run(ended, cwd=ROOT / "firmware", check=True, timeout=DEADLINE_S)
    service = Service(state, Path(listener.getsockname()))
    assert service.event("boot")["reset_cause"] == WATCHDOG
    assert service.end(signal.SIGTERM) == 0
    listener.setblocking(False)
    told = ""
    while "STOPPING" not in told:
        told = listener.recv(200).decode()


def test_a_release_on_trial_is_judged_by_crashes_and_not_by_power_cuts(state: Path) -> None:
    files = {"terminal/__init__.py": b"", "terminal/app.py": HANGING}
    bundle = Bundle(files, version=0x200, hardware="pi", firmware=(0, 0xFFFFFFFF))
    slot = state / "files" / "slot" / "a"
    (slot / "app" / "terminal").mkdir(parents=True)
    (slot / "manifest").write_bytes(bundle.frame)
    for path, body in files.items():
        (slot / "app" / path).write_bytes(body)
    control = regions.find(regions.CONTROL)
    flash = FlashFile(str(state / "flash.bin"))
    offer = states.staging(states.factory(), bundle.digest, 0x200, 0)
    ControlRecord(flash.region(*control)).store(states.armed(states.verified(offer)))
    flash.close()
    slots = []
    for turn in range(5):
        service = Service(state)
        slots.append(service.event("boot")["slot"])
        service.end(signal.SIGKILL)
        if turn == 0:
            after_a_power_cut(state)
    assert slots == ["a"] * 4 + ["factory"]
    flash = FlashFile(str(state / "flash.bin"))
    after = ControlRecord(flash.region(*control)).state
    assert (after.state, after.reason) == (states.ROLLED_BACK, states.TRIES_SPENT)
    assert flash.violations == 0
    flash.close()


def test_a_second_terminal_in_the_same_folder_is_refused(state: Path) -> None:
    flash = FlashFile(str(state / "flash.bin"))
    done = subprocess.run(
        [sys.executable, "-m", "boards.host.pi", "--state", str(state)],
        cwd=ROOT / "firmware",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    flash.close()
    assert (done.returncode, done.stdout) == (2, "")
    assert "another terminal runs in" in done.stderr


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", POWER_ON),
        ("\0" * 45, POWER_ON),
        ("here", POWER_ON),
        ("here running", CRASH),
        ("there running", POWER_ON),
    ],
)
def test_a_damaged_note_of_the_last_life_counts_as_a_power_cut(tmp_path: Path, text: str, cause: int) -> None:
    path = tmp_path / "lastlife"
    path.write_text(text)
    assert LastLife(str(path), "here").cause() == cause
    assert LastLife(str(path), "").cause() == POWER_ON, "a machine that does not tell its starts apart"
