"""What takes part: each published library behind a small adapter, and those that cannot, with the reason."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Package:
    """A package of the index, and which of its files go where on the device (target to source)."""

    name: str
    version: str
    modules: Mapping[str, str]


@dataclass(frozen=True)
class Library:
    """One library as the bench runs it.

    `boot`, `call`, `after`: firmware/boards/process/shootout.py; `FILES` in `call` is the list of the files.
    `served`: what its server answers by URL path, for a version and its files. `state`: files it keeps
    beside the application once the first version is installed. `is_single`: it replaces main.py alone.
    """

    name: str
    packages: tuple[Package, ...]
    promise: str
    adapted: str
    call: str
    served: Callable[[int, Files], Files]
    state: Callable[[int, Files], Files]
    boot: str = ""
    after: str = ""
    is_single: bool = False


def _nothing(version: int, files: Files) -> Files:
    return {}


def _below(folder: str) -> Callable[[int, Files], Files]:
    return lambda version, files: {f"{folder}/{name}": content for name, content in files.items()}


# ---------------------------------------------------------------- micropython-ota


def _versioned(version: int, files: Files) -> Files:
    return {"/terminal/version": str(version).encode(), **_below(f"/terminal/{version}")(version, files)}


_MICROPYTHON_OTA = Library(
    name="micropython-ota",
    packages=(Package("micropython-ota", "2.1.0", {"micropython_ota.py": "micropython_ota.py"}),),
    promise="downloads every file into a folder first, then copies them into place, one after another",
    adapted="nothing",
    call="import micropython_ota\n"
    "micropython_ota.ota_update('http://server', 'terminal', FILES, use_version_prefix=False)\n",
    served=_versioned,
    state=lambda version, files: {"version": str(version).encode()},
)

# ---------------------------------------------------------------- Senko

_SENKO = Library(
    name="senko",
    packages=(
        Package(
            "micropython-senko",
            "2.0.4",
            {"senko/senko.py": "senko/senko.py", "senko/__init__.py": "senko/__init__.py"},
        ),
    ),
    promise="replaces each file that differs from the server's, in place",
    adapted="a URL instead of a GitHub repository, which it offers itself; SHA-256 where it compares SHA-1, "
    "which this MicroPython is built without",
    call="from senko import Senko\n"
    "if Senko(None, None, url='http://server/app', files=FILES).update():\n"
    "    machine.reset()\n",
    served=_below("/app"),
    state=_nothing,
)

# ---------------------------------------------------------------- espFOTA and OTAUpdateManager

_ESPFOTA = Library(
    name="espFOTA",
    packages=(Package("micropython-espfota", "1.0.0", {"espFOTA.py": "espFOTA.py"}),),
    promise="streams a new main.py over the old one",
    adapted="the application is one file, because it replaces no other",
    call="from espFOTA import espFOTA\nespFOTA('ssid', 'password', 'http://server/main.py').run()\n",
    served=_below(""),
    state=_nothing,
    is_single=True,
)

_MANAGER = Library(
    name="OTAUpdateManager",
    packages=(
        Package("micropython-otaupdatemanager", "1.0.0", {"OTAUpdateManager.py": "OTAUpdateManager.py"}),
    ),
    promise="streams a new main.py over the old one when its MQTT broker says so",
    adapted="its connection to the author's broker is left out and its message delivered by hand; its "
    "download address is the bench's; the application is one file, because it replaces no other",
    call="import OTAUpdateManager\n"
    "OTAUpdateManager.espFOTA.connection = lambda self: None\n"
    "manager = OTAUpdateManager.espFOTA(b'user', b'token', 'ssid', 'password')\n"
    "manager.host = 'http://server/main.py'\n"
    "manager.callback(b'', '{\"status\": 1}')\n",
    served=_below(""),
    state=_nothing,
    is_single=True,
)

# ---------------------------------------------------------------- HttpOTA


def _package(version: int, files: Files) -> Files:
    packed = b"".join(map(_tar_entry, files, files.values())) + bytes(2 * tarfile.BLOCKSIZE)
    manifest = {"version": version, "package_url": "http://server/package.tar"}
    return {"/terminal.json": json.dumps(manifest).encode(), "/package.tar": packed}


def _tar_entry(name: str, content: bytes) -> bytes:
    """A file of an archive; its size ends with a space, as in old archives: utarfile reads no other."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    header = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    header[135:136] = b" "
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


_HTTPOTA = Library(
    name="httpota",
    packages=(
        Package("micropython-httpota", "0.1.26", {"HttpOTA.py": "HttpOTA.py"}),
        Package("micropython-utarfile", "0.3.2", {"utarfile.py": "utarfile.py"}),
    ),
    promise="downloads one archive, then deletes and writes each file",
    adapted="the archive's sizes are written as old tar did, which is what utarfile reads",
    call="from HttpOTA import HttpOTA\n"
    "HttpOTA('terminal', {'base_url': 'http://server/'}).update(force=True)\n",
    served=_package,
    state=lambda version, files: {"manifest.json": json.dumps({"version": version}).encode()},
)

# ---------------------------------------------------------------- OTAmpy

_OTAMPY_MODULES = ("__init__", "core", "ota", "boot", "restore")
_OTAMPY_HOST = """
import binascii, hashlib
from otampy import OTA

class Host:
    # The far end of its serial line: what `otampy upd` sends, packet by packet.
    def __init__(self):
        self._packets = self._session() if job["served"] else iter(())

    def _session(self):
        files = {name: served("http://server/" + name) for name in job["files"]}
        yield b"UPDATE_START:%d:%d" % (len(files), sum(map(len, files.values())))
        for name, data in files.items():
            digest = binascii.hexlify(hashlib.sha256(data).digest()).decode()
            yield f"FILE_START:{name}:{len(data)}:{digest}".encode()
            for n, at in enumerate(range(0, len(data), 96)):
                yield b"CHUNK:%d:" % n + binascii.b2a_base64(data[at : at + 96]).strip()
            yield b"FILE_END"
        yield b"UPDATE_COMMIT"

    def read(self):
        packet = next(self._packets, None)
        try:
            go(len(packet or b""))
        except OSError:
            return None  # the line is dead
        return packet

    def send(self, packet):
        pass

    reply = send

config = {
    "UPDATE_REQUEST_FLAG_FILE": "update_requested.flag",
    "OTA_TIMEOUT_MS": 20,
    "OTA_BOOT_LISTEN_MS": 0,
    "OTA_BOOT_RECOVERY_LISTEN_MS": 0,
}
ota = OTA(object(), config)
ota._core.transport = Host()
"""

_OTAMPY = Library(
    name="otampy",
    packages=(
        Package(
            "otampy",
            "4.9.3",
            {f"otampy/{name}.py": f"otampy/device/lib/otampy/{name}.py" for name in _OTAMPY_MODULES},
        ),
    ),
    promise="stages every file, keeps the old ones, commits them under a journal that each start repairs, "
    "and goes back unless the new version is confirmed",
    adapted="packets are handed to it instead of coming over its serial line; its windows for a person at "
    "the line are shut, its time-out is short; boot.py, which the bench needs, is not updated",
    boot=_OTAMPY_HOST + "ota.boot()\nota.recover()\n",
    call="with open('update_requested.flag', 'w') as flag:\n    flag.write('1')\nmachine.reset()\n",
    after=_OTAMPY_HOST + "ota.confirm()\nota.mark_application_alive()\n",
    served=_below(""),
    state=_nothing,
)

LIBRARIES = (_MICROPYTHON_OTA, _SENKO, _HTTPOTA, _ESPFOTA, _MANAGER, _OTAMPY)

LEFT_OUT = {
    "pycom-ota-client 0.0.1": "writes firmware images through a module only Pycom's firmware has",
    "openmv-ota 1.0.7": "updates ROM file systems of OpenMV cameras with the help of their bootloader",
    "sgota, usgota 0.0.1": "the packages hold no code",
}
