# How the last process of a terminal ended: what the reset-cause register says on a chip.
#
# One line in a file beside the flash: the machine's boot id and a word. Another boot id means that the
# machine was switched off or restarted. The same one, and the word still "running", means that the process
# died.

import os

POWER_ON, HARD, WATCHDOG, CRASH = 1, 2, 3, 4  # as firmware/boards/README.md
RUNNING, STOPPED, RESET, HUNG = "running", "stopped", "reset", "hung"
_CAUSES = {RUNNING: CRASH, STOPPED: POWER_ON, RESET: HARD, HUNG: WATCHDOG}
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class LastLife:
    # path: the file; boot_id: of this machine's start.

    def __init__(self, path, boot_id=None):
        self._path = path
        self._boot_id = _read(_BOOT_ID) if boot_id is None else boot_id
        self._word = self._last()

    def cause(self):
        # -> number of the reset cause. Where a crash cannot be told from a power cut, it was a power cut.
        return _CAUSES.get(self._word, POWER_ON)

    def note(self, word):
        # From now on the process ended so, unless it says otherwise.
        new = self._path + ".new"
        with open(new, "w") as file:
            file.write(self._boot_id + " " + word + "\n")
        os.replace(new, self._path)

    def ended(self, result):
        # systemd's $SERVICE_RESULT, said by another process once this one is gone.
        if result == "watchdog" and self._word == RUNNING:
            self.note(HUNG)

    def _last(self):
        # -> the word of this machine's start, None if there is none.
        boot_id, _, word = _read(self._path).partition(" ")
        return word if boot_id and boot_id == self._boot_id else None


def _read(path):
    # -> the file's text, "" if there is none.
    try:
        with open(path) as file:
            return file.read(200).strip()
    except OSError:
        return ""
