"""`tableside server ...` from the outside: it says what it does, and every trouble is one sentence with a
next step.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from server_bench import KEYS, SITE, prepare_state

from server import cli
from server.devices.keyfiles import load_signer
from server.devices.keys import KeyStore
from server.storage.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60


@dataclass(frozen=True)
class Done:
    """A command that ran to its end."""

    returncode: int
    stdout: str
    stderr: str


def command(*words: str | Path, stdin: bytes = b"") -> Done:
    """Run a command to its end; in this process, because a new one costs seconds on a busy machine."""
    out, err = StringIO(), StringIO()
    usual, sys.stdin = sys.stdin, TextIOWrapper(BytesIO(stdin))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = cli.main([str(word) for word in words])
            except SystemExit as end:  # argparse
                code = int(end.code or 0)
    finally:
        sys.stdin = usual
    return Done(code, out.getvalue(), err.getvalue())


def one_sentence(done: Done, code: int) -> str:
    """The single line a failed command printed."""
    text = done.stderr
    assert done.returncode == code, text
    assert text.count("\n") == 1, text
    assert text.startswith("tableside server: ")
    return text


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_state(tmp_path_factory.mktemp("template"))


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "state")
    return tmp_path / "state"


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    """Start a server that dies with this thread."""
    argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "server", "run", *map(str, words)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_start_says_what_it_made_and_a_signal_stops_it_cleanly(tmp_path: Path, number: int) -> None:
    server = start("--state", tmp_path / "new", "--ready-json")
    assert server.stdout is not None
    ready = json.loads(server.stdout.readline())
    assert ready["event"] == "ready"
    assert ready["site"] == "demo"
    assert [sentence.split()[0] for sentence in ready["first_start"]] == ["made", "made", "published"]
    host, port = ready["mqtt"]["host"], ready["mqtt"]["port"]
    address = json.loads((tmp_path / "new" / "server.json").read_text())
    assert address == {
        "pid": server.pid, "site": "demo", "mqtt": {"host": host, "port": port}, "http": ready["http"]
    }  # fmt: skip
    socket.create_connection((host, port), 5).close()
    server.send_signal(number)
    _, err = server.communicate(timeout=DEADLINE_S)
    assert (server.returncode, err) == (0, b"")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), 5)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "keys").glob("*.pem")}
    assert modes == {0o600}


def test_the_first_start_reads_well_for_people(tmp_path: Path) -> None:
    server = start("--state", tmp_path / "new")
    assert server.stdout is not None
    lines = [server.stdout.readline().decode() for _ in range(6)]
    server.terminate()
    server.communicate(timeout=DEADLINE_S)
    assert "published the demo menu" in lines[2]
    assert "terminals connect to MQTT 127.0.0.1:" in lines[3]
    assert "HTTP API on http://127.0.0.1:" in lines[4]
    assert "Ctrl-C stops" in lines[5]


def test_a_second_server_on_the_same_state_is_turned_away(state: Path) -> None:
    first = start("--state", state, "--ready-json")
    assert first.stdout is not None
    first.stdout.readline()
    said = one_sentence(command("run", "--state", state), 2)
    assert "already running" in said
    assert "--state" in said
    first.terminate()
    first.communicate(timeout=DEADLINE_S)


def test_a_port_in_use_is_named(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = one_sentence(command("run", "--state", state, "--mqtt", f"127.0.0.1:{port}"), 2)
    assert f"127.0.0.1:{port}" in said
    assert "--mqtt" in said


def test_a_damaged_database_is_named_with_the_next_step(state: Path) -> None:
    (state / "tableside.db").write_bytes(b"\x5a" * 8192)
    said = one_sentence(command("run", "--state", state), 2)
    assert str(state / "tableside.db") in said
    assert "restore" in said


def test_a_damaged_key_file_is_named_with_the_next_step(state: Path) -> None:
    path = state / "keys" / "server-sign.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")
    said = one_sentence(command("run", "--state", state), 2)
    assert str(path) in said
    assert "restore" in said


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--mqtt", "nowhere"], "HOST:PORT"),
        (["--mqtt", "127.0.0.1:99999"], "HOST:PORT"),
        (["--site", "Trattoria Roma"], "a-z, 0-9 and -"),
        (["--site", "villa"], "villa"),
        (["--window", "0"], "between 1 and 255"),
        (["--limit-op", "fast"], "PER_SECOND:BURST"),
        (["--beacon-interval", "0"], "between 0.05 and 300"),
        (["--root-key", "/nowhere/root.pem", "--state", "/proc/nowhere"], "--state"),
    ],
)
def test_a_wrong_option_says_what_would_be_right(state: Path, words: list[str], part: str) -> None:
    assert part in one_sentence(command("run", "--state", state, *words), 2)


def add(name: str) -> list[str]:
    """A registration without its key."""
    return ["devices", "add", name, "--table", "4", "--password", "x"]


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["devices", "suspend", "t-9999"], 1, "devices list"),
        ([*add("t-0001"), "--key", KEYS / "t-0008.spki.der"], 1, "already"),
        ([*add("t-0008"), "--key", KEYS / "root.pub.der"], 1, "refused"),
        ([*add("T 8"), "--key", KEYS / "t-0008.spki.der"], 2, "a-z"),
        ([*add("t-0008"), "--key", "/nowhere.der"], 2, "/nowhere.der"),
        (["menu", "publish", ROOT / "fixtures" / "menu" / "demo.json"], 1, "--next"),
        (["menu", "publish", ROOT / "pyproject.toml"], 1, "not JSON"),
        (["stock", "set", "1", "many"], 2, "or none"),
        (["release", "publish", "/nowhere"], 1, "/nowhere"),
        (["release", "withdraw", "00"], 1, "release list"),
        (["keys", "rotate", "--root-key", KEYS / "evil-root.pem"], 2, "root"),
    ],
)
def test_a_change_that_cannot_be_made_is_explained(
    state: Path, words: list[str | Path], code: int, part: str
) -> None:
    assert part in one_sentence(command(*words, "--state", state), code)


def test_a_state_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    assert "server run" in one_sentence(command("devices", "list", "--state", tmp_path), 2)


def test_devices_go_through_their_life(state: Path) -> None:
    key = (KEYS / "t-0008.spki.der").read_bytes()
    added = command(
        "devices",
        "add",
        "t-0008",
        "--table",
        "8",
        "--key",
        "-",
        "--password",
        "p",
        "--pending",
        "--state",
        state,
        stdin=key,
    )
    assert added.returncode == 0, added.stderr
    for word, expected in (
        ("activate", "active"),
        ("suspend", "suspended"),
        ("activate", "active"),
        ("retire", "retired"),
    ):
        assert command("devices", word, "t-0008", "--state", state).returncode == 0
        assert {d.device: d.state for d in Ledger(state).devices(SITE)}["t-0008"] == expected
    assert "register it anew" in one_sentence(command("devices", "activate", "t-0008", "--state", state), 1)
    listed = json.loads(command("devices", "list", "--json", "--state", state).stdout)
    assert listed[-1]["device"] == "t-0008"
    assert len(listed) == 5


def test_rotated_keys_sign_the_menu_anew_and_the_server_starts(state: Path) -> None:
    before = json.loads(command("keys", "show", "--json", "--state", state).stdout)
    assert command("keys", "rotate", "--state", state).returncode == 0
    after = json.loads(command("keys", "show", "--json", "--state", state).stdout)
    assert after["epoch"] == before["epoch"] + 1
    assert after["server_sign_kid"] != before["server_sign_kid"]
    assert json.loads(command("menu", "show", "--json", "--state", state).stdout)["version"] == 2
    server = start("--state", state, "--ready-json")
    assert server.stdout is not None
    assert json.loads(server.stdout.readline())["first_start"] == []
    server.terminate()
    server.communicate(timeout=DEADLINE_S)


def test_a_rotation_that_was_interrupted_is_named_and_can_be_done_again(state: Path) -> None:
    KeyStore(state / "keys", "demo").rotate_sign(load_signer(KEYS / "root.pem"))  # and no menu signed by it
    assert "keys rotate" in one_sentence(command("run", "--state", state), 2)
    assert command("keys", "rotate", "--state", state).returncode == 0
    server = start("--state", state, "--ready-json")
    assert server.stdout is not None
    assert json.loads(server.stdout.readline())["event"] == "ready"
    server.terminate()
    server.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["devices", "add", "--help"], ["stock", "set", "--help"]]
)
def test_help_teaches_with_an_example(words: list[str]) -> None:
    done = command(*words)
    assert done.returncode == 0
    assert "usage:" in done.stdout
    if len(words) > 1:
        assert "example" in done.stdout


def test_a_reader_that_leaves_early_is_no_error(state: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "server", "menu", "show", "--state", state],
        cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=DEADLINE_S,
    )  # fmt: skip
    os.close(write)
    assert b"Traceback" not in done.stderr
