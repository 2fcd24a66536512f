# Runs on MicroPython: one start of a device whose files are looked after by somebody else's update library
# (bench/shootout). The device's boot.py, which no library changes, is two lines that execute this text.
#
# Boot option "shootout":
#   boot     what the library wants run at every start, before the application
#   call     its update call; run in this start only if it is given
#   after    what it wants run once the application works
#   served   URL path -> [place, length] behind the flash map: what the server answers; none: it is away
#   limit    bytes after which the link is cut for good, None for never
#   files    names of the application's files
#
# Lines "@shootout {...}" tell the bench what came of it. Shims stand in for what a board with Wi-Fi has and
# this one has not: urequests (over the served bytes), network, and machine's reset and pins.

import hashlib
import json
import sys
import time

import _board
import board

_job = board.options()["shootout"]
_HOST_SLASHES = 3
_EHOSTUNREACH = 113
_ECONNRESET = 104
_SECTOR = 4096


def _tell(**what):
    print("@shootout", json.dumps(what))


def _served(url):
    # -> what the server answers to a GET, None for what it has not. OSError while it is away.
    if not _job["served"]:
        raise OSError(_EHOSTUNREACH)
    place = _job["served"].get("/" + "/".join(url.split("/")[_HOST_SLASHES:]))
    if place is None:
        return None
    at, length = place
    data = bytearray(length)
    _board.Flash(0, (at + length + _SECTOR - 1) // _SECTOR * _SECTOR).readblocks(0, data, at)
    return bytes(data)


_passed = [0]


def _pass(n):
    # n bytes go over the link. OSError when it is cut before the last of them.
    _passed[0] += n
    if _job["limit"] is not None:
        _job["limit"] -= n
        if _job["limit"] < 0:
            raise OSError(_ECONNRESET)


class _Raw:
    def __init__(self, data):
        self._data = data
        self._at = 0

    def read(self, n=-1):
        end = len(self._data) if n < 0 else self._at + n
        part = self._data[self._at : end]
        _pass(len(part))
        self._at += len(part)
        return part

    def close(self):
        pass


class Response:
    # As micropython-lib's urequests has it.
    _content = None

    def __init__(self, data):
        self.status_code = 404 if data is None else 200
        self.headers = {"Content-Length": str(len(data or b""))}
        self.raw = _Raw(data or b"")

    @property
    def content(self):
        if self._content is None:
            self._content = self.raw.read()
        return self._content

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)

    def close(self):
        pass


class Requests:
    @staticmethod
    def get(url, **options):
        return Response(_served(url))


class Pin:
    OUT = 1

    def __init__(self, *options):
        pass

    def value(self, level=0):
        return level


class Machine:
    Pin = Pin

    @staticmethod
    def reset():
        _tell(passed=_passed[0])
        _board.reset()

    soft_reset = reset

    @staticmethod
    def unique_id():
        return b"bench1"


class Wlan:
    def __init__(self, *options):
        pass

    def active(self, on=True):
        return on

    def connect(self, *options):
        pass

    def disconnect(self):
        pass

    def isconnected(self):
        return True


class Network:
    STA_IF = 0
    WLAN = Wlan


def _at_once(duration):
    pass


class Clock:
    # Nobody waits here for a Wi-Fi that is always there.
    sleep = sleep_ms = _at_once
    gmtime = time.gmtime
    mktime = time.mktime
    ticks_ms = time.ticks_ms
    ticks_diff = time.ticks_diff
    time = time.time  # the last: from here on the name means this


class Hashes:
    # This build has no SHA-1; where it is only compared with itself another hash does as well.
    sha1 = sha256 = hashlib.sha256


def _attempt(what, text):
    # Run a part; what it dies of is told, and the start goes on, as it does on a board.
    try:
        exec(text, {"machine": Machine, "served": _served, "go": _pass, "job": _job})
    except Exception as error:  # noqa: BLE001 - somebody else's code
        _tell(failed=what, error=repr(error)[:200])


def _hash(name):
    h = hashlib.sha256()
    try:
        with open(name, "rb") as file:
            while True:
                part = file.read(512)
                if not part:
                    break
                h.update(part)
    except OSError:
        return None
    return "".join([f"{byte:02x}" for byte in h.digest()])


def main():
    shims = {"machine": Machine, "urequests": Requests, "network": Network, "uhashlib": Hashes, "time": Clock}
    sys.modules.update(shims)
    sys.modules["utime"] = Clock
    if "/lib" not in sys.path:
        sys.path.append("/lib")
    _attempt("boot", _job["boot"])
    if _job["call"]:
        _attempt("call", _job["call"])
    space = {"__name__": "__main__"}
    try:
        with open("main.py") as file:
            text = file.read()
        exec(text, space)
    except Exception as error:  # noqa: BLE001 - the application that the cut left behind
        _tell(failed="main", error=repr(error)[:200])
    started = space.get("STARTED")
    if started is not None:
        _attempt("after", _job["after"])
    _tell(passed=_passed[0])
    _tell(started=started, files={name: _hash(name) for name in _job["files"]})
    _board.poweroff(0)


main()
