# Frozen into the image, never part of a bundle: decides what runs, and runs it.
#
# At every boot: read the control record, let the state table decide, hash the slot it names, store the next
# state (a trial's start is counted before the jump), put the slot in front of sys.path and start the
# application. If no slot is whole, the factory application of the image runs.

import sys

from ..regions import CONTROL
from . import install, states
from .record import ControlRecord
from .states import FACTORY, SLOT_NAMES

POWER_ON = 1  # board.reset_cause()

# Modules of the image that an application from a slot must use: the root key it trusts.
_KEPT = ("terminal.trust",)


def choose(board, image_version):
    # Decide and store -> (slot, State). What is returned may run now.
    record = ControlRecord(board.region(CONTROL))

    def is_whole(slot, digest):
        return _run(install.check_slot_steps(board.root, slot, digest, image_version))

    spent = board.reset_cause() != POWER_ON
    state, slot = states.boot(record.state, spent, is_whole)
    record.store(state)
    return slot, state


def main(board):
    # Choose and run; returns only if the application does.
    try:
        if not board.mounted:
            board.mount()
    except OSError as error:
        print("[loader] the terminal does not start on this file system:", error)
        return
    from terminal.version import VERSION

    slot, state = choose(board, VERSION)
    board.image_version = VERSION
    board.on_trial = state.state == states.TRIAL
    board.update_pending = state.state != states.CONFIRMED or state.reason != states.NONE
    if state.reason:
        print(f"[loader] {states.NAMES[state.state]}: {states.REASONS[state.reason]}")
    path = None if slot == FACTORY else install.app_path(board.root, slot)
    try:
        _launch(board, path, SLOT_NAMES[slot])
    except Exception as error:  # noqa: BLE001 - whatever an application dies of, the terminal goes on
        _tell(error)
        if not board.on_trial:
            return  # to the prompt; the watchdog, once started, restarts the terminal
    if board.on_trial:
        # An application that ends without confirming has failed this try.
        board.reset()


def _launch(board, path, name):
    _forget_application()
    first = [path, ".frozen"] if path else [".frozen"]
    sys.path[:] = first + [entry for entry in sys.path if entry not in first]
    from terminal.app import main as run_application

    run_application(board, name)


def _forget_application():
    # Drop every module of the package, so that not one of the image's mixes with a slot's.
    for name in _KEPT:
        __import__(name)  # now, so that a slot finds this one
    for name in list(sys.modules):
        if (name == "terminal" or name.startswith("terminal.")) and name not in _KEPT:
            del sys.modules[name]


def _run(steps):
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def _tell(error):
    if hasattr(sys, "print_exception"):
        sys.print_exception(error)
    else:  # CPython
        print(f"[loader] {type(error).__name__}: {error}")
