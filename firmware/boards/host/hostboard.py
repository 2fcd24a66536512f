# A board that lives inside a CPython program: many terminals in one process.
#
# Flash regions are NOR in memory, the file system is a directory. It has no watchdog, and every start of it
# is a power-on. pi.py makes a machine of its own of it.

import os

from terminal import regions

from .nor import Nor

POWER_ON = 1


class HostBoard:
    # root: directory that stands for littlefs; nor: the flash (a new, erased one if not given);
    # options: boot options; entropy: random(n) -> bytes.

    def __init__(self, root, nor=None, options=None, entropy=os.urandom, name="host", hardware="pi"):
        self.name = name
        self.hardware = hardware
        self.root = str(root)
        self.mounted = []
        self.nor = Nor(regions.FLASH_BYTES) if nor is None else nor
        self.random = entropy
        self._options = options or {}
        self._boots = 1
        # What the loader says about the application it starts; there is none here.
        self.image_version = 0
        self.image_digest = None
        self.on_trial = False
        self.update_pending = False

    def region(self, name):
        return self.nor.region(*regions.find(name))

    def mount(self):
        if not os.path.isdir(self.root):
            raise OSError(2, "the directory that stands for the file system is missing", self.root)
        self.mounted.append(self.root)
        return False

    def options(self):
        return self._options

    def boots(self):
        return self._boots

    async def network_up(self):
        pass

    def reset(self):
        # A program cannot restart its hardware: whoever runs this terminal catches SystemExit and starts
        # it again.
        raise SystemExit("reset")

    def reset_cause(self):
        return POWER_ON

    def wdt_start(self, timeout_ms):
        pass

    def wdt_feed(self):
        pass

    def instret(self):
        return 0

    def idle_us(self):
        return 0

    def stats(self):
        nor = self.nor
        return {
            "erases": nor.erases,
            "programs": nor.programs,
            "bytes": nor.program_bytes,
            "violations": nor.violations,
        }
