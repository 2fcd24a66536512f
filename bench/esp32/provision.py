"""Gives a flashed chip its identity: a new device key, a broker password, its table, the site's root key."""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.boards.base import Identity
from bench.errors import BenchError
from bench.esp32 import flash
from bench.esp32.layout import chip_named, load_layout
from bench.paths import BUILD
from bench.provision import Endpoint, copies, public_spki, record

DEVICES = BUILD / "devices"
_ID = re.compile(r"[a-z0-9-]{1,32}")
_ROOT_SPKI_BYTES = 422  # RSA-3072


@dataclass(frozen=True)
class Order:
    """What to write into the chip."""

    site: str
    device: str
    table: str
    broker: Endpoint
    root_spki: bytes


@dataclass(frozen=True)
class Provisioned:
    """The public half of the new key, and the command that registers the terminal at the server."""

    spki_path: Path
    register_command: str


def endpoint(text: str) -> Endpoint:
    """HOST:PORT of the broker.

    Raises: BenchError(BAD_ADDRESS).
    """
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise BenchError("BAD_ADDRESS", f"{text!r} is not HOST:PORT: write for example 192.168.1.10:1883.")
    return Endpoint(host, int(port))


def provision(line: flash.Line, chip_name: str, order: Order, progress: flash.Progress) -> Provisioned:
    """Make a key and a password, write the identity partition, and keep only the public half.

    Raises: BenchError (BAD_ID, BAD_ROOT_KEY, DOES_NOT_FIT, and those of bench.esp32.flash).
    """
    for name in (order.site, order.device, order.table):
        if not _ID.fullmatch(name):
            raise BenchError("BAD_ID", f"{name!r} is not an id: use 1 to 32 of a-z, 0-9 and '-'.")
    if len(order.root_spki) != _ROOT_SPKI_BYTES:
        raise BenchError(
            "BAD_ROOT_KEY",
            f"The root key has {len(order.root_spki)} bytes instead of the {_ROOT_SPKI_BYTES} of an RSA-3072 "
            "public key in DER: give the file that tableside server keys show names.",
        )
    chip, layout = chip_named(chip_name), load_layout()
    progress("making the terminal's key")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    who = Identity(order.site, order.device, order.table, secrets.token_urlsafe(18), pem)
    content = copies(record(who, order.broker, order.root_spki))
    flash.write_identity(line, chip, layout, content, progress)
    DEVICES.mkdir(parents=True, exist_ok=True)
    spki_path = DEVICES / f"{order.device}.spki.der"
    spki_path.write_bytes(public_spki(who))
    command = ["tableside", "server", "devices", "add", order.device, "--table", order.table]
    command += ["--key", str(spki_path), "--password", who.password, "--state", "DIR"]
    return Provisioned(spki_path, shlex.join(command))
