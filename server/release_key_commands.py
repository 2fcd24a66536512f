"""What ``tableside release keygen|sign|verify`` do: offline, with key files, on no server."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from server.config import ConfigError
from server.releases import check, files, keys, secureboot


def _passphrase(args: argparse.Namespace) -> bytes | None:
    path: Path | None = args.passphrase_file
    if path is None:
        return None
    lines = path.read_text("utf-8").splitlines()
    if not lines or not lines[0]:
        raise ConfigError(f"the first line of {path} is empty: put the passphrase there")
    return lines[0].encode()


def keygen(args: argparse.Namespace) -> int:
    """`keygen`."""
    phrase = _passphrase(args)
    made = keys.rotate(args.folder, phrase, args.root) if args.rotate else keys.make(args.folder, phrase)
    if args.json:
        told = {"files": [str(path) for path in made.files], "epoch": made.epoch, "finished": made.finished}
        print(json.dumps(told))
        return 0
    if made.finished:
        print("finished what an interrupted keygen had begun")
    for path in made.files:
        print(f"wrote {path}")
    statements = [path for path in made.files if path.suffix == ".cbor"]
    if statements:
        given = " ".join(f"--rotation {path}" for path in statements)
        print(f"publish the first release signed with release-{made.epoch}.pem together with {given}")
    else:
        print("keep root.pem offline: whoever has it can make terminals trust other release keys")
    return 0


def sign(args: argparse.Namespace) -> int:
    """`sign`."""
    if args.secure_boot_key is not None:
        return _sign_image(args)
    if args.key is None:
        raise ConfigError("name the release key with --key, for example --key keys/release-1.pem")
    certificate = args.certificate.read_bytes() if args.certificate else None
    key = keys.load_release(args.key, _passphrase(args), certificate)
    bundle = files.load_draft(args.what).sign(key.signer, key.certificate)
    files.save(bundle, args.what)
    if args.json:
        print(
            json.dumps({"bundle": bundle.hash.hex(), "release_key": key.signer.kid.hex(), "epoch": key.epoch})
        )
        return 0
    print(f"signed {args.what} with release key {key.signer.kid.hex()} of epoch {key.epoch}")
    print(f"reference {bundle.hash[:8].hex()}")
    return 0


def _sign_image(args: argparse.Namespace) -> int:
    out: Path = args.out or args.what.with_suffix(".signed.bin")
    secureboot.sign(args.what, args.secure_boot_key, out)
    if args.json:
        print(json.dumps({"image": str(out), "bytes": out.stat().st_size}))
    else:
        print(f"wrote {out}, {out.stat().st_size} bytes, with a secure boot v2 signature block")
    return 0


def verify(args: argparse.Namespace) -> int:
    """`verify`."""
    found = check.examine(args.folder, keys.load_public(args.root))
    if args.json:
        print(json.dumps({"ok": not found.failed, "passed": found.passed, "failed": found.failed or None,
                          "why": found.why or None, **found.facts}))  # fmt: skip
        return 1 if found.failed else 0
    for name in found.passed:
        print(f"ok      {name}")
    if found.failed:
        print(f"FAILED  {found.failed}: {found.why}")
        return 1
    for name, value in found.facts.items():
        if name != "files":
            shown = " to ".join(dict.fromkeys(value)) if isinstance(value, list) else value
            print(f"{name.replace('_', ' ')}: {shown if shown not in ('', None) else '-'}")
    for path, size, digest in found.facts["files"]:
        print(f"  {digest}  {size:>7}  {path}")
    return 0
