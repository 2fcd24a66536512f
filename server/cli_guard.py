"""What every command of ``tableside server`` ends with: an exit code, and one sentence when it could not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

from server.errors import ServerError

EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

Command = Callable[[argparse.Namespace], int]


def guarded(target: str) -> Command:
    """The command ``module:function``, imported when it runs; its errors become a sentence and an exit
    code.
    """

    def run(args: argparse.Namespace) -> int:
        try:
            module, _, name = target.partition(":")
            return int(getattr(import_module(module), name)(args))
        except ServerError as error:
            return complain(str(error), EXIT_REFUSED if error.refused else EXIT_USAGE)
        except BrokenPipeError:
            sys.stderr.close()  # whoever read our output left: nothing more to say
            return EXIT_OK
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            reason = error.strerror or str(error)
            return complain(f"cannot use{where}: {reason}; check the path and its permissions", EXIT_USAGE)
        except KeyboardInterrupt:
            return complain("interrupted; nothing is left running", EXIT_INTERRUPTED)
        except Exception as error:
            from server.devices.keyfiles import KeyFileError
            from server.wire.errors import Refusal

            if isinstance(error, KeyFileError):
                return complain(str(error), EXIT_USAGE)
            if isinstance(error, Refusal):
                return complain(f"refused ({error.code}): {error.detail}", EXIT_REFUSED)
            raise

    return run


def complain(sentence: str, code: int) -> int:
    """Print a sentence about what went wrong -> `code`, the exit code it goes with."""
    print(f"tableside server: {sentence}", file=sys.stderr)
    return code
