# NOR flash in memory, for tests and for terminals that run inside another program.
#
# The model is the one of the emulated boards: a program clears bits (AND), in steps of up to 256 bytes;
# an erase takes a 4 KiB sector in sixteen steps of 256 bytes; the power can fail before, inside or after
# any step.
# It runs on CPython and on MicroPython, so real littlefs can sit on it.

SECTOR_BYTES = 4096
PAGE_BYTES = 256


class PowerCut(BaseException):
    # The power failed inside a flash step. Not an Exception: no handler of the firmware may catch it.
    pass


class Nor:
    # size: bytes, a multiple of 4096; image: initial contents (copied), erased flash if not given.

    def __init__(self, size, image=None):
        self.data = bytearray(b"\xff" * size) if image is None else bytearray(image)
        self.erases = 0
        self.programs = 0
        self.program_bytes = 0
        self.violations = 0  # program steps that tried to set a bit
        self.steps = 0  # program and erase steps so far
        self._cut_step = -1
        self._cut_keep = 0
        self._cut_seed = 0

    def region(self, offset, size):
        # -> the block device of a part of this flash.
        return Region(self, offset, size)

    def cut_at(self, n, keep=-1, seed=0):
        # Fail inside the n-th step from now (1 is the next one), 0 disarms. keep < 0: nothing of the step is
        # done; keep = k: its first k bytes; seed != 0: a seeded random part of its other bits as well.
        self._cut_step = self.steps + n if n > 0 else -1
        self._cut_keep = keep
        self._cut_seed = seed

    def program(self, offset, buf):
        self.programs += 1
        self.program_bytes += len(buf)
        at = 0
        while at < len(buf):
            n = min(len(buf) - at, PAGE_BYTES - (offset + at) % PAGE_BYTES)
            old = int.from_bytes(self.data[offset + at : offset + at + n], "big")
            asked = int.from_bytes(buf[at : at + n], "big")
            if old & asked != asked:
                self.violations += 1
            self._step(offset + at, (old & asked).to_bytes(n, "big"))
            at += n

    def erase(self, offset):
        self.erases += 1
        for page in range(offset, offset + SECTOR_BYTES, PAGE_BYTES):
            self._step(page, b"\xff" * PAGE_BYTES)

    def _step(self, offset, new):
        self.steps += 1
        if self.steps == self._cut_step:
            self._tear(offset, new)
            raise PowerCut()
        self.data[offset : offset + len(new)] = new

    def _tear(self, offset, new):
        done = max(0, min(self._cut_keep, len(new)))
        self.data[offset : offset + done] = new[:done]
        state = self._cut_seed
        if state:
            for i in range(done, len(new)):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                mask = state >> 16 & 255
                old = self.data[offset + i]
                self.data[offset + i] = (old & ~mask | new[i] & mask) & 255


class Region:
    # A block device with MicroPython's extended interface (readblocks, writeblocks, ioctl).

    def __init__(self, nor, offset, size):
        self.nor = nor
        self._offset = offset
        self._size = size

    def readblocks(self, block, buf, offset=0):
        start = self._at(block, offset, len(buf))
        buf[:] = self.nor.data[start : start + len(buf)]

    def writeblocks(self, block, buf, offset=None):
        start = self._at(block, offset or 0, len(buf))
        if offset is None:
            for sector in range(start, start + len(buf), SECTOR_BYTES):
                self.nor.erase(sector)
        self.nor.program(start, buf)

    def ioctl(self, op, arg):
        if op == 4:
            return self._size // SECTOR_BYTES
        if op == 5:
            return SECTOR_BYTES
        if op == 6:
            self.nor.erase(self._at(arg, 0, SECTOR_BYTES))
            return 0
        return None

    def _at(self, block, offset, n):
        start = block * SECTOR_BYTES + offset
        if start < 0 or start + n > self._size:
            raise OSError(22)
        return self._offset + start
