"""Child processes that never outlive the bench.

Every child starts in its own session (a Ctrl-C at the terminal reaches the bench alone, which then takes
things down in order) and asks the kernel for SIGKILL when the thread that started it dies, so even `kill -9`
of the bench leaves nothing behind. The death signal hangs on the *thread*: start children from a lasting one.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from bench.errors import BenchError

Stream = int | IO[bytes] | None


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    own_terminal: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a child that dies with the calling thread.

    `own_terminal`: stdin is a terminal and becomes the child's controlling one, so that Ctrl-C works in it.
    Raises: BenchError(MISSING_TOOL) when setpriv or the program itself is not installed.
    """
    leash = ["setpriv", "--pdeathsig", "KILL", "--"]
    if own_terminal:
        leash += ["setsid", "--ctty"]
    command = [*leash, *map(str, argv)]
    for program in (command[0], str(argv[0])):
        if shutil.which(program) is None:
            raise BenchError("MISSING_TOOL", f"{program} is not installed or not executable: run ci/setup.")
    return subprocess.Popen(
        command,
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=not own_terminal,  # setsid would fork if it led its group already
    )


def kill(child: subprocess.Popen[bytes]) -> int:
    """Kill a child at once (a power cut, not a request) and return its exit status."""
    if child.poll() is None:
        child.kill()
    return child.wait()


def stop(child: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask a child to end with SIGTERM, kill it after `grace_s`; returns its exit status."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(grace_s)
        except subprocess.TimeoutExpired:
            return kill(child)
    return child.wait()
