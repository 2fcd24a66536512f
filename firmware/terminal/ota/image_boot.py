# The loader's part in firmware images: at every start, before an application is chosen.
#
# The bootloader has made its choice already. It is compared with our record, the next state is stored, and
# where another image should run, otadata is changed and the terminal restarts.

from ..regions import IMAGE
from ..wire.rsa import run_now
from . import image_states, states
from .image import Images
from .record import ControlRecord
from .states import OtaError

POWER_ON = 1  # board.reset_cause()


def main(board):
    # Judge the image that runs -> False if the terminal has to restart for the right one.
    # Sets board.image_on_trial and board.image_pending.
    board.image_on_trial = board.image_pending = False
    try:
        images = Images(board.images())
    except OtaError:
        return True  # the chip's table has no two OTA partitions: nothing to choose from
    state, chosen = choose(board, images)
    board.image_on_trial = state.state == states.TRIAL
    board.image_pending = state.state != states.CONFIRMED or state.reason != states.NONE
    if state.reason:
        print(f"[image] {states.NAMES[state.state]}: {states.in_words(state.reason)}")
    return chosen == images.running


def choose(board, images):
    # Decide and store, then make otadata say the same -> (State, slot that is to run).
    record = ControlRecord(board.region(IMAGE))

    def is_whole(slot, digest):
        return run_now(images.is_whole_steps(board.root, slot, digest))

    spent = board.reset_cause() != POWER_ON
    state, slot = image_states.boot(record.state, images.running, images.entries(), spent, is_whole)
    record.store(state)
    try:
        images.select(slot)
    except OtaError as error:
        # What runs goes on running: the other image cannot be chosen.
        state = _without(state, images.running, error.reason)
        record.store(state)
        return state, images.running
    return state, slot


def _without(state, running, reason):
    # -> the state of a terminal that stays with the image that runs.
    if state.state == states.ARMED or state.state == states.TRIAL:
        if running != state.target():
            return states.rolled_back(state, reason)
        return state
    return state.but(reason=reason)
