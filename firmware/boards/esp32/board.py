# A real ESP32, -S3, -C3 or -C6: partitions for flash regions, Wi-Fi without power save, the chip's watchdog.
#
# Wi-Fi credentials and nothing else come from /settings.json: {"wifi": {"ssid": "...", "key": "..."}}.

import json
import os
import sys

import machine
import network
from esp32 import Partition
from machine import reset  # noqa: F401 - part of the board's interface
from terminal import regions

name = "esp32"
# The hardware class: which native code in a bundle runs here (numbers: MicroPython's py/persistentcode.h).
_NATIVE = {10: "xtensawin", 11: "rv32imc"}
hardware = "esp32-" + _NATIVE.get(getattr(sys.implementation, "_mpy", 0) >> 10 & 15, "bytecode")
root = ""  # the port's own start-up mounted littlefs at /
import_path = ["", ".frozen"]  # a stock image has the application in its file system
mounted = []  # the file system once it was found to be littlefs
image_version = 0  # set by the loader: release number of this image
image_digest = None  # set by the loader: what names this image, None if nobody built one
on_trial = False  # set by the loader: the application has to prove itself
image_on_trial = False  # set by the loader: the firmware image has to prove itself
image_pending = False  # set by the loader: there is something to do or to report about firmware images
update_pending = False  # set by the loader: an update is under way, or there is something to report

random = os.urandom  # the hardware generator; true random numbers once the radio is on

_SETTINGS = "/settings.json"
_POWER_ON, _HARD, _WATCHDOG, _SOFT = 1, 2, 3, 5
# A panic reads as a hard reset here; brown-outs read as power-on.
_CAUSES = {machine.PWRON_RESET: _POWER_ON, machine.WDT_RESET: _WATCHDOG, machine.SOFT_RESET: _SOFT}

_watchdog = []
_wlan = []


def region(name):
    # -> the block device of a region: the partition of that name. OSError if the table lacks it.
    found = Partition.find(Partition.TYPE_DATA, label=name)
    if not found:
        raise OSError("no partition named " + name + ": flash the partition table of boards/esp32")
    return found[0]


def mount():
    # The port mounts what it finds, FAT too: make sure it is littlefs2 -> False, nothing was made anew.
    # OSError for any other file system: updates cannot be made safe there.
    dev = region(regions.VFS)
    head = bytearray(16)
    for block in (0, 1):
        dev.readblocks(block, head, 0)
        if head[8:] == b"littlefs":
            mounted.append(dev)
            return False
    raise OSError("the vfs partition is not littlefs2: write it with `tableside firmware flash`")


def options():
    # Boot options are for benches; a chip in a restaurant has none.
    return {}


def images():
    # -> the class that gives access to the two firmware images and to the bootloader's choice.
    return Partition


def boots():
    # The chip does not count its starts; the counters region does.
    return 0


async def network_up():
    # Join the Wi-Fi; returns at once, the radio keeps trying and the link waits with its own back-off.
    wifi = _credentials()
    if wifi is None:
        print("[board] no Wi-Fi: put ssid and key into " + _SETTINGS)
        return
    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    # Power save adds up to a beacon interval (100 ms and more) to every answer.
    wlan.config(pm=network.WLAN.PM_NONE)
    wlan.connect(wifi["ssid"], wifi["key"])
    _wlan.append(wlan)


def _credentials():
    # -> {"ssid", "key"}, None without a usable settings file.
    try:
        with open(_SETTINGS) as file:
            wifi = json.load(file)["wifi"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return wifi if isinstance(wifi, dict) and "ssid" in wifi and "key" in wifi else None


def reset_cause():
    return _CAUSES.get(machine.reset_cause(), _HARD)


def wdt_start(timeout_ms):
    # The chip's watchdog cannot be stopped again.
    if not _watchdog:
        _watchdog.append(machine.WDT(timeout=timeout_ms))


def wdt_feed():
    if _watchdog:
        _watchdog[0].feed()


def instret():
    # Not counted on this board.
    return 0


def idle_us():
    return 0


def stats():
    # The flash driver keeps no counters.
    return {}
