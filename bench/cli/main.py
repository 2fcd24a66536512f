"""`tableside`: one command for bench, server and firmware.

Exit codes: 0 pass, 1 fail, 2 usage, set-up or error, 130 interrupted. Bad input ends in one sentence that
names the next step, never in a traceback.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

from bench.errors import BenchError, CaseFailed

PROGRAMS = {  # name -> module that adds its parser; only the one asked for is imported
    "bench": "bench.cli.verbs",
    "server": "server.cli",
    "firmware": "bench.firmware_cli",
    "release": "bench.release_cli",
    "sim": "bench.cli.sim",
}
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXAMPLES = """examples:
  tableside bench run            judge the firmware on the QEMU board against a real server
  tableside bench shell          boot a terminal and order by hand
  tableside server run           start the order server
  tableside firmware build       build the firmware images
Every command explains itself: tableside bench run --help"""


def build_parser(program: str | None = None) -> argparse.ArgumentParser:
    """The command line of one program, or of all."""
    parser = argparse.ArgumentParser(
        prog="tableside",
        description="Table ordering terminals, their order server, and the bench that judges both.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    programs = parser.add_subparsers(title="programs", metavar="PROGRAM", required=True)
    for name, module in PROGRAMS.items():
        if program in (None, name):
            import_module(module).add_parser(programs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn every expected trouble into a sentence and an exit code."""
    words = sys.argv[1:] if argv is None else argv
    program = words[0] if words and words[0] in PROGRAMS else None
    arguments = build_parser(program).parse_args(words)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(arguments.run(arguments) or 0)
    except BenchError as error:
        print(f"tableside: {error.text}", file=sys.stderr)
        return error.exit_status
    except CaseFailed as error:
        print(f"tableside: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("tableside: interrupted; everything it started is stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left: nothing to say, nobody to say it to
        return EXIT_ERROR


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
