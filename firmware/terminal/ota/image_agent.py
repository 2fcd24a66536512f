# Takes a firmware image from the offer to the restart, and confirms it afterwards: OtaAgent's way with other
# storage. The record, the manifest's rules, the partitions and otadata are the image's own.
#
# An image is not tried while the application's own update is: whoever fails has to be known.

from ..regions import CONTROL, IMAGE
from . import states
from .agent import OtaAgent
from .image import Images, ImageStaging, load_manifest
from .record import ControlRecord
from .states import OtaError

_BUSY = (states.VERIFIED, states.ARMED, states.TRIAL, states.ROLLED_BACK)


class ImageAgent(OtaAgent):
    # The arguments are OtaAgent's; board.images() is esp32.Partition. Raises OtaError IMAGE_UNKNOWN.

    def __init__(self, board, root_key, site, _slot, _version, send, report, reboot):
        images = Images(board.images())
        super().__init__(board, root_key, site, "ota_" + str(images.running), 0, send, report, reboot)
        self._images = images
        self.record = ControlRecord(board.region(IMAGE))
        state = self.record.state
        # The release that runs, 0 if it was flashed by cable.
        self._version = state.version if images.running == state.slot else state.other_version

    # -- what the application says

    def confirm(self):
        # -> True if an image on trial became the confirmed one: marked valid, read back, and only then on
        # record.
        images = self._images
        state = self.record.state
        try:
            if state.state == states.TRIAL and images.running == state.target():
                images.keep()
                self._store(states.confirmed(state))
                self._board.image_on_trial = False
                return True
            if images.running == state.slot:
                images.keep()  # the record was lost while it was on trial: the bootloader still doubts it
        except OtaError as refusal:
            self._tell(refusal.reason)
        return False

    def question(self):
        # -> (hardware class, running release) to ask the server about.
        return self._images.hardware(), self._version

    def status(self):
        told = super().status()
        told["image"] = self._images.hardware()
        return told

    # -- where OtaAgent leaves the how to the layer

    def _leave(self, on_trial):
        slot = self.record.state.slot
        try:
            self._images.select(slot)
        except OtaError as refusal:
            self._tell(refusal.reason)  # judged again at the next start
        if self._images.running != slot:
            self._reboot()

    def _runs_in(self, slot):
        return slot == self._images.running

    def _is_held(self):
        return False  # on arming and on offers this layer asks `_is_busy`

    def _check(self, manifest):
        if self._is_busy():
            raise OtaError(states.NOT_NOW)
        state = self.record.state
        self._images.check_manifest(manifest, state.target(), self._site, self._version)

    def _fits(self, manifest):
        return True  # an image stands on nothing

    def _is_busy(self):
        # Whether the application's update has to be over first.
        return ControlRecord(self._board.region(CONTROL)).state.state in _BUSY

    def _new_staging(self, slot, manifest):
        self._images.select(self._images.running)  # never write into what the bootloader may start
        return ImageStaging(self._images, self._board.root, slot, manifest)

    def _load_manifest(self, slot, digest):
        return load_manifest(self._board.root, slot, digest)

    def _whole_steps(self, slot, digest):
        return self._images.is_whole_steps(self._board.root, slot, digest)

    def _arm(self):
        if self._is_busy():
            return  # verified; tried again with the next link or offer
        state = states.armed(self.record.state)
        self._store(state)
        try:
            self._images.select(state.target())
        except OtaError as refusal:
            self._store(states.cancelled(state, refusal.reason))
            return
        self._reboot()
