"""The bench as its users start it: results, interruption, nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.paths import ROOT

DEADLINE_S = 120.0
ONE_CASE = ["--board", "process", "--suite", "boot", "--case", "power_on_is_its_reset_cause"]
TWO_LANES = ["--board", "process", "--suite", "signing,faults", "--jobs", "2"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "bench.cli.main", "bench", *words]


def environment(build: Path) -> dict[str, str]:
    return {**os.environ, "TABLESIDE_BUILD": str(build), "PYTHONUNBUFFERED": "1"}


def start(build: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env=environment(build),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    """Read output until a line contains the words."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    pytest.fail(f"{words!r} never came: {seen}")


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not alive


def test_a_run_of_one_case_passes_and_writes_every_report(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("r.json", "r.html", "r.xml")}
    reports = ["--json", str(files["r.json"]), "--html", str(files["r.html"]), "--junit", str(files["r.xml"])]
    done = subprocess.run(
        command("run", *ONE_CASE, "--seed", "7", *reports),
        cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(files["r.json"].read_text())
    assert (result["outcome"], result["seed"], result["board"]["name"]) == ("pass", 7, "process")
    assert [case["name"] for case in result["suites"][0]["cases"]] == ["power_on_is_its_reset_cause"]
    assert all(path.stat().st_size for path in files.values())
    assert "artefacts:" in done.stdout


def test_orders_at_a_fixed_rate_are_measured_on_a_board_with_the_hosts_clock(tmp_path: Path) -> None:
    case = ["--board", "process", "--suite", "throughput", "--case", "latency_from_the_scheduled_time"]
    done = subprocess.run(
        command("run", *case, "--json"),
        cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    suite = json.loads(done.stdout)["suites"][0]
    assert suite["cases"][0]["outcome"] == "pass", suite
    latency = next(one for one in suite["measurements"] if one["name"] == "latency_p50_at_100_per_s")
    assert 0 < latency["value"] < 60_000


def test_json_on_stdout_is_nothing_but_json(tmp_path: Path) -> None:
    done = subprocess.run(
        command("run", *ONE_CASE, "--json"),
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert json.loads(done.stdout)["outcome"] == "pass"


def test_two_benches_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    both = [start(tmp_path, "run", *ONE_CASE, "--seed", "1") for _ in range(2)]
    outputs = [process.communicate(timeout=DEADLINE_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_everything_it_started(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path, "run", *TWO_LANES)
    try:
        wait_for_line(process, "pass  faults.")
        children = descendants(process)
        assert len(children) >= 5  # two lanes, two servers, a board at least
        process.send_signal(how)
        rest = process.communicate(timeout=30)[0]
        assert process.returncode == 130
        assert "interrupted" in rest
        assert "Traceback" not in rest
        assert gone(children)
    finally:
        process.kill()


def test_even_a_killed_bench_leaves_no_process_behind(tmp_path: Path) -> None:
    process = start(tmp_path, "run", *TWO_LANES)
    try:
        wait_for_line(process, "pass  faults.")
        children = descendants(process)
        assert len(children) >= 5
    finally:
        process.kill()
        process.wait()
    assert gone(children)
    assert process.stdout is not None
    process.stdout.close()


def test_a_lane_that_dies_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    process = start(tmp_path, "run", *TWO_LANES)
    try:
        wait_for_line(process, "pass  faults.")
        children = descendants(process)
        lanes = [child for child in children if "bench.suites.lanes" in child.cmdline()]
        assert len(lanes) == 2
        lanes[0].kill()
        rest = process.communicate(timeout=30)[0]
        assert process.returncode == 2
        assert "The process of the suite signing died" in rest
        assert gone(children)
    finally:
        process.kill()


def test_a_shell_fed_from_a_pipe_orders_and_shows_the_kitchen(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        command("shell", "--board", "process", "--table", "4"),
        cwd=ROOT,
        env=environment(tmp_path),
        input="order 2x espresso\norders\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[kitchen] order 1, table 4: 2 x espresso, total 5.20" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith(("@", "=", "!"))]
    assert "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - started < DEADLINE_S


def test_a_shell_on_a_terminal_passes_keys_through_and_leaves_on_ctrl_bracket(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("shell", "--board", "process"),
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    screen = Screen(master)
    try:
        screen.until("Ctrl-] leaves.")
        os.write(master, b"order 2x espresso\r")
        screen.until("[kitchen] order 1, table 4: 2 x espresso, total 5.20")
        children = psutil.Process(process.pid).children(recursive=True)
        os.write(master, b"\x1d")
        screen.until("artefacts:")
        assert process.wait(20) == 0
        assert gone(children)
    finally:
        process.kill()
        process.wait()
        os.close(master)


class Screen:
    """What a terminal shows."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.text = ""

    def until(self, words: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while words not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                pytest.fail(f"{words!r} never came: {self.text}")
            self.text += os.read(self.fd, 4096).decode(errors="replace")
