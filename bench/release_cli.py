"""`tableside release`: the server's commands, and `build`, which needs the firmware and its compiler."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.paths import ROOT

if TYPE_CHECKING:
    from server.releases.bundle import Draft

_EXAMPLES = """examples:
  tableside release build --version 1.1.0 --hardware qemu-rv32 --since v1.0.0 --out build/1.1.0
  tableside release build --version 0.1.1 --hardware process --out build/0.1.1
                                     for images built from this very checkout: only the number changes"""


def add_parser(programs: Any) -> None:
    """Add the program `release`."""
    from server import cli_release

    group = cli_release.add_parser(programs)
    parser = group.add_parser(
        "build",
        help="build an unsigned bundle; the same sources make the same bytes",
        description="Compile the modules that differ from an image, for one hardware class, into a bundle "
        "that `release sign` signs. The image is named by the git revision or the folder it was built from.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", required=True, metavar="X.Y.Z", help="number of the release")
    parser.add_argument(
        "--hardware", required=True, help="hardware class: it decides how modules are compiled"
    )
    image = parser.add_mutually_exclusive_group()
    image.add_argument("--since", metavar="REVISION", help="git revision the terminals' image was built from")
    image.add_argument(
        "--base", type=Path, metavar="DIR", help="checkout the terminals' image was built from"
    )
    parser.add_argument(
        "--floor",
        default="0.0.0",
        metavar="X.Y.Z",
        help="once confirmed, nothing below this version is installed (default: %(default)s)",
    )
    parser.add_argument("--site", default="", help="only for terminals of this site (default: all)")
    parser.add_argument(
        "--asset",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a further file of the bundle, below assets/; repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the bundle")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=_build)


def version_number(text: str) -> int:
    """A release number from major.minor.patch. Raises: BenchError(BAD_VERSION)."""
    match = re.fullmatch(r"(\d{1,5})\.(\d{1,3})\.(\d{1,3})", text)
    parts = [int(part) for part in match.groups()] if match else [1 << 16]
    if parts[0] > 0xFFFF or max(parts[1:], default=0) > 0xFF:
        raise BenchError("BAD_VERSION", f"{text!r} is not MAJOR.MINOR.PATCH of at most 65535.255.255.")
    return parts[0] << 16 | parts[1] << 8 | parts[2]


def _build(args: argparse.Namespace) -> int:
    from bench import release_build
    from server.releases import files
    from server.wire.errors import Refusal

    if args.since:
        image = release_build.revision_sources(args.hardware, args.since)
    else:
        image = release_build.checkout_sources(args.hardware, args.base or ROOT)
    plan = release_build.Plan(
        args.hardware,
        version_number(args.version),
        image,
        version_number(args.floor),
        args.site,
        dict(_asset(word) for word in args.asset),
    )
    try:
        draft = release_build.build(plan)
    except Refusal as refusal:
        raise BenchError("BAD_RELEASE", f"No terminal would take this: {refusal.detail}.") from None
    files.save_draft(draft, args.out)
    _tell(args, draft, release_build.out_of_reach(plan))
    return 0


def _asset(word: str) -> tuple[str, bytes]:
    from server.releases.images import IMAGE_FILE, MODULES_FILE

    name, _, path = word.partition("=")
    if f"assets/{name}" in (IMAGE_FILE, MODULES_FILE):
        raise BenchError("BAD_ASSET", f"{name} is written by the build itself: name yours otherwise.")
    if not name or not path:
        raise BenchError("BAD_ASSET", f"{word!r} is not NAME=FILE, for example logo.bin=art/logo.bin.")
    try:
        return name, Path(path).read_bytes()
    except OSError as error:
        raise BenchError("BAD_ASSET", f"{path} cannot be read: {error.strerror}.") from None


def _tell(args: argparse.Namespace, draft: Draft, out_of_reach: list[str]) -> None:
    from hashlib import sha256

    from server.releases.bundle import split
    from server.releases.images import digest_in

    digest = sha256(draft.manifest.payload() + draft.data).hexdigest()
    contents = split(draft.manifest, draft.data)
    image = (digest_in(contents) or b"").hex()
    if args.json:
        facts = {"folder": str(args.out), "sha256": digest, "bytes": len(draft.data), "image_digest": image}
        print(json.dumps(facts | {"files": list(contents), "out_of_reach": out_of_reach}))
        return
    size = f"{len(contents)} files, {len(draft.data)} bytes"
    print(f"built {args.out}: {args.version} for {args.hardware}, {size}")
    print(f"made over the image {image}")
    if out_of_reach:
        names = ", ".join(out_of_reach)
        print(f"differs from that image, but only a firmware image can bring it: {names}")
    print(f"sha256 of what is signed: {digest}")
    print(f"next: tableside release sign {args.out} --key keys/release-1.pem")
