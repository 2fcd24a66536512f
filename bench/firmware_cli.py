"""`tableside firmware`: build images, flash a chip, give it an identity, talk to it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.paths import FIXTURE_KEYS

if TYPE_CHECKING:  # esptool takes half a second to import: only the commands that need it pay
    from bench.esp32.flash import Line

DEFAULT_ROOT_KEY = FIXTURE_KEYS / "root.pub.der"
_RAW = argparse.RawDescriptionHelpFormatter
BUILD_EXAMPLES = """examples:
  tableside firmware build                      both emulated boards
  tableside firmware build --board esp32        application and file system for an ESP32-C3
  tableside firmware build --board esp32 --micropython ESP32_GENERIC_C3-20251209-v1.27.0.bin
                                                everything for an empty chip of the image's kind"""
FLASH_EXAMPLES = """examples:
  tableside firmware flash --port /dev/ttyUSB0                what was built last for --chip
  tableside firmware flash --port /dev/ttyUSB0 --only vfs     the application alone, in seconds
  tableside firmware flash --port socket://lab:4000 --image tableside-esp32c3.bin
Identity, counters and journal on the chip are kept, unless --erase or --image says otherwise."""


def add_parser(programs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `firmware` and its commands to the program's parser."""
    firmware = programs.add_parser(
        "firmware",
        help="build, flash and provision terminals",
        description="Builds the terminal's firmware, brings it onto a chip, and talks to it.",
        epilog="example: tableside firmware build --board esp32",
    )
    verbs = firmware.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_build(verbs)
    _add_flash(verbs)
    _add_provision(verbs)
    for name, text, run in (
        ("console", "type at a chip's console (leave with Ctrl-])", _console),
        ("monitor", "print what a chip says, until Ctrl-C", _monitor),
    ):
        parser = verbs.add_parser(
            name, help=text, description=text, epilog=f"example: tableside firmware {name} --port URL"
        )
        _add_port(parser)
        parser.set_defaults(run=run)


def _add_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", metavar="URL", required=True, help="/dev/ttyUSB0, rfc2217://host:port, socket://…"
    )
    parser.add_argument("--baud", type=int, default=115200, help="bits per second (default: %(default)s)")


def _add_line(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument("--no-reset", action="store_true", help="the chip is in download mode already")
    parser.add_argument(
        "--no-stub", action="store_true", help="use the chip's ROM alone: slower, needs nothing"
    )


def _add_build(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("build", help="build the images", epilog=BUILD_EXAMPLES, formatter_class=_RAW)
    parser.add_argument("--board", choices=["qemu", "process", "esp32"], help="default: qemu and process")
    parser.add_argument("--chip", default="esp32c3", help="esp32, esp32s3 or esp32c3 (default: %(default)s)")
    parser.add_argument(
        "--micropython", type=Path, metavar="IMAGE", help="published MicroPython image for the chip"
    )
    parser.add_argument(
        "--root-key", type=Path, default=DEFAULT_ROOT_KEY, metavar="DER", help="public root key to freeze"
    )
    parser.add_argument(
        "--with-agent", action="store_true", help="include the bench's agent: for the lab only"
    )
    parser.add_argument(
        "--flash-mb", type=int, choices=[4, 8, 16], default=4, help="esp32: size of the flash (default: 4)"
    )
    parser.add_argument("--settings", type=Path, metavar="JSON", help="the site's Wi-Fi (format: README)")
    parser.set_defaults(run=_build)


def _add_flash(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "flash", help="write a build into a chip and verify it", epilog=FLASH_EXAMPLES, formatter_class=_RAW
    )
    _add_line(parser)
    parser.add_argument("--chip", default="esp32c3", help="esp32, esp32s3 or esp32c3 (default: %(default)s)")
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="one merged image instead of the last build"
    )
    parser.add_argument(
        "--only", metavar="PART", help="one part of the build: vfs, micropython, partitions, …"
    )
    parser.add_argument(
        "--erase", action="store_true", help="erase the whole flash first, identity and journal too"
    )
    parser.add_argument(
        "--force", action="store_true", help="also on an older chip revision than the image wants"
    )
    parser.set_defaults(run=_flash)


def _add_provision(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "provision",
        help="give a flashed chip its key, password and table",
        epilog="example: tableside firmware provision --port /dev/ttyUSB0 --device t-0012 --table 12 "
        "--broker 192.168.1.10:1883 --root-key root.pub.der",
    )
    _add_line(parser)
    parser.add_argument("--chip", default="esp32c3", help="esp32, esp32s3 or esp32c3 (default: %(default)s)")
    parser.add_argument("--site", default="demo")
    parser.add_argument("--device", required=True, help="the terminal's id, as the server will know it")
    parser.add_argument("--table", required=True)
    parser.add_argument("--broker", required=True, metavar="HOST:PORT")
    parser.add_argument(
        "--root-key", type=Path, required=True, metavar="DER", help="the site's public root key"
    )
    parser.set_defaults(run=_provision)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(
            "NO_FILE", f"Cannot read {what} {path}: {error.strerror}. Check the name."
        ) from error


def _build(arguments: argparse.Namespace) -> int:
    if arguments.board == "esp32":
        return _build_esp32(arguments)
    from bench import images

    _read(arguments.root_key, "the root key")
    boards: tuple[images.BoardName, ...] = (arguments.board,) if arguments.board else images.BOARDS
    for board in boards:
        try:
            image = images.build(board, progress=_say, root_key=arguments.root_key)
        except images.ImageError as error:
            raise BenchError(error.code, str(error)) from error
        state = "built" if image.built else "unchanged"
        print(f"{board}: {state}, {image.path.stat().st_size} bytes, sha256 {image.sha256}\n  {image.path}")
    return 0


def _build_esp32(arguments: argparse.Namespace) -> int:
    from bench.esp32 import build as builder
    from bench.esp32.application import settings_file
    from bench.esp32.layout import chip_named

    micropython = None
    if arguments.micropython is not None:
        image = _read(arguments.micropython, "the MicroPython image")
        micropython = builder.split_micropython(image, str(arguments.micropython))
    chip = micropython.chip if micropython else chip_named(arguments.chip)
    settings = None
    if arguments.settings is not None:
        content = _read(arguments.settings, "the settings")
        settings = settings_file(content, str(arguments.settings))
    made = builder.build(
        chip,
        micropython=micropython,
        root_key=_read(arguments.root_key, "the root key"),
        with_agent=arguments.with_agent,
        settings=settings,
        flash_mb=arguments.flash_mb,
        progress=_say,
    )
    print(f"{made.chip}: application of {made.application_bytes} bytes in {made.folder}")
    for part in [*made.parts, *([made.merged] if made.merged else [])]:
        print(f"  {part.offset:#08x}  {part.size:8} bytes  sha256 {part.sha256}  {part.file}")
    if made.merged is None:
        print("Without MicroPython: enough for a chip flashed before. --micropython IMAGE completes it.")
    if settings is None:
        print("Without --settings the chip joins no Wi-Fi.")
    if arguments.root_key == DEFAULT_ROOT_KEY:
        print("It trusts the fixtures' throw-away root: for a real site give --root-key.")
    return 0


def _segments(arguments: argparse.Namespace) -> tuple[str, list[tuple[str, int, bytes]]]:
    """Chip name, and what to write."""
    from bench.esp32 import build as builder
    from bench.esp32.layout import chip_named, chip_of_image

    if arguments.image is not None:
        image = _read(arguments.image, "the image")
        chip = chip_of_image(image, str(arguments.image))
        return chip.name, [(arguments.image.name, chip.boot_offset, image)]
    made = builder.load(builder.OUTPUT / chip_named(arguments.chip).name)
    parts = [part for part in made.parts if arguments.only in (None, part.name)]
    if not parts:
        names = ", ".join(part.name for part in made.parts)
        raise BenchError("NO_PART", f"The build has no part {arguments.only!r}: it has {names}.")
    if arguments.only is None and made.merged is None:
        raise BenchError(
            "INCOMPLETE",
            "The build has no MicroPython in it: build with --micropython IMAGE, or flash the application "
            "alone with --only vfs.",
        )
    return made.chip, [(part.name, part.offset, builder.read_part(made, part)) for part in parts]


def _line(arguments: argparse.Namespace) -> Line:
    from bench.esp32.flash import Line

    return Line(arguments.port, arguments.baud, not arguments.no_reset, not arguments.no_stub)


def _flash(arguments: argparse.Namespace) -> int:
    from bench.esp32 import flash
    from bench.esp32.layout import chip_named

    name, segments = _segments(arguments)
    written = flash.flash(
        _line(arguments),
        chip_named(name),
        segments,
        erase=arguments.erase,
        force=arguments.force,
        progress=_say,
    )
    print(f"{arguments.port}: {written} bytes in {len(segments)} parts written to the {name} and verified")
    return 0


def _provision(arguments: argparse.Namespace) -> int:
    from bench.esp32 import provision

    order = provision.Order(
        site=arguments.site,
        device=arguments.device,
        table=arguments.table,
        broker=provision.endpoint(arguments.broker),
        root_spki=_read(arguments.root_key, "the root key"),
    )
    done = provision.provision(_line(arguments), arguments.chip, order, _say)
    print(f"{order.device}: identity written; its private key is on the chip alone")
    print(f"public key: {done.spki_path}")
    print(f"register it:\n  {done.register_command}")
    return 0


def _console(arguments: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        raise BenchError(
            "NO_TERMINAL", "The console needs a terminal to type at: use tableside firmware monitor."
        )
    _open(arguments).close()
    command = [sys.executable, "-m", "serial.tools.miniterm", "--raw", arguments.port, str(arguments.baud)]
    return subprocess.run(command, check=False).returncode


def _open(arguments: argparse.Namespace) -> Any:
    import serial  # type: ignore[import-untyped]

    try:
        return serial.serial_for_url(arguments.port, arguments.baud)
    except (OSError, ValueError, serial.SerialException) as error:
        raise BenchError(
            "NO_PORT",
            f"Cannot open {arguments.port}: {error}. Plug the board in, or name another with --port.",
        ) from error


def _monitor(arguments: argparse.Namespace) -> int:
    import serial

    with _open(arguments) as port:
        port.timeout = None
        try:
            while data := port.read(1):
                data += port.read(port.in_waiting)
                sys.stdout.write(data.decode("utf-8", "replace"))
                sys.stdout.flush()
        except (serial.SerialException, OSError) as error:
            raise BenchError(
                "PORT_LOST", f"{arguments.port} went away: {error}. Plug it in and start again."
            ) from error
    return 0
