# A terminal that is a program on a small Linux machine, a Raspberry Pi above all: python3 -m boards.host.pi
#
# systemd is its supervisor: it starts the program again whenever it ends, and ends it when it hangs. The
# machine's boot id tells a crash from a power cut, which is what a release on trial is judged by.

import argparse
import os
import signal
import stat
import sys
import types

from .flashfile import FlashFile
from .hostboard import HostBoard
from .lastlife import RESET, RUNNING, STOPPED, LastLife
from .supervisor import Supervisor

EXIT_RESET = 121  # as the process board
EXIT_USAGE = 2
_HELP = """Runs a terminal on this machine until it is stopped.

In the state folder: flash.bin, the terminal's flash (provisioning record, order journal, counters, update
record); files/, its menu and releases; lastlife, how it ended the last time. Copy flash.bin and you have
copied its keys.

It ends with 121 when it wants to be started again, after an update for example: start it from systemd
(tableside-terminal.service beside this file), which also ends it when it hangs. SIGTERM and Ctrl-C stop it;
orders that are not answered yet are kept."""


class PiBoard(HostBoard):
    # folder: the state folder; environment: os.environ.

    def __init__(self, folder, environment, options=None):
        root = os.path.join(folder, "files")
        os.makedirs(root, exist_ok=True)
        super().__init__(root, FlashFile(os.path.join(folder, "flash.bin")), options, name="pi")
        self.supervisor = Supervisor(environment)
        self._last = LastLife(os.path.join(folder, "lastlife"))
        self._last.note(RUNNING)
        self._is_stopping = False

    def reset_cause(self):
        return self._last.cause()

    def reset(self):
        if self._is_stopping:
            raise SystemExit(0)
        self._last.note(RESET)
        raise SystemExit(EXIT_RESET)

    def wdt_start(self, timeout_ms):
        if not self.supervisor.is_there():
            print("[board] no watchdog: start this program from systemd")
        self.supervisor.watch(timeout_ms)

    def wdt_feed(self):
        self.supervisor.alive()

    def wdt_stop(self):
        # The application ended because somebody said so.
        self.stop()

    def stop(self):
        self._is_stopping = True
        self._last.note(STOPPED)
        self.supervisor.stopping()


def main(arguments=None):
    # -> exit code.
    parser = argparse.ArgumentParser(
        prog="python3 -m boards.host.pi",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--state", required=True, metavar="FOLDER", help="where it keeps everything; made if missing"
    )
    parser.add_argument(
        "--ended",
        metavar="RESULT",
        help="run nothing; note how the last one ended ($SERVICE_RESULT of systemd)",
    )
    chosen = parser.parse_args(arguments)
    if chosen.ended is not None:
        LastLife(os.path.join(chosen.state, "lastlife")).ended(chosen.ended)
        return 0
    try:
        board = PiBoard(chosen.state, os.environ)
    except BlockingIOError:
        print("another terminal runs in", chosen.state, file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print("the state folder cannot be used:", error, file=sys.stderr)
        return EXIT_USAGE
    _run(board)
    return 0


def _run(board):
    from terminal.ota import loader

    def stop(_number, _frame):
        board.stop()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sys.dont_write_bytecode = True  # a slot holds its release's files and nothing else
    _be_an_image()
    _keep_console()
    board.supervisor.ready()
    try:
        loader.main(board)
    except KeyboardInterrupt:
        board.stop()  # before the application was there to take it


def _be_an_image():
    # Nobody froze a root key or a digest into a package that lies in files. Applications from slots look for
    # the module, and find that it says nothing.
    try:
        import terminal.trust  # noqa: F401
    except ImportError:
        sys.modules["terminal.trust"] = types.ModuleType("terminal.trust")


def _keep_console():
    # A service's standard input is /dev/null, which cannot be waited for: nobody will ever type there.
    mode = os.fstat(0).st_mode
    if stat.S_ISCHR(mode) and not os.isatty(0):
        reading, writing = os.pipe()
        os.dup2(reading, 0)
        os.set_inheritable(writing, False)
    sys.stdout.reconfigure(line_buffering=True)


if __name__ == "__main__":
    raise SystemExit(main())
