# Frozen into the image, never part of a bundle: decides what runs, and runs it.
#
# At every boot: read the control record, let the state table decide, hash the slot it names, store the next
# state (a trial's start, and one after a crash, is counted before the jump), and start the application. If no
# slot is whole, the factory application of the image runs.
#
# Modules of a slot are loaded into RAM, those of the image run from flash. A bundle therefore carries the
# modules that changed, and assets/modules.txt, signed like every other file: one line for each module of
# the application, dependencies first, "slot NAME" or "image NAME"; a package whose __init__ imports its
# modules stands for all of them. The firmware range and a digest (fits.py) name the image the others come
# from. A bundle without that list is the whole package and goes to the front of sys.path.

import sys

from ..regions import CONTROL
from . import fits, install, states
from .record import ControlRecord
from .states import FACTORY, SLOT_NAMES

POWER_ON = 1  # board.reset_cause()
_WATCHDOG_MS = 8000

MODULES = "/assets/modules.txt"
# Modules of the image that an application from a slot must use: the root key it trusts.
_KEPT = ("terminal.trust",)


def choose(board, image_version, image_digest):
    # Decide and store -> (slot, State). What is returned may run now.
    record = ControlRecord(board.region(CONTROL))

    def is_whole(slot, digest):
        return _run(install.check_slot_steps(board.root, slot, digest, image_version, image_digest))

    known = record.state
    if getattr(board, "image_on_trial", False):
        # Until the image stays, the application's record is that of the image before: its bundle has to be
        # there when the terminal goes back. It runs if it was made over both.
        is_fit = known.slot != FACTORY and is_whole(known.slot, known.hash)
        return known.slot if is_fit else FACTORY, known
    spent = board.reset_cause() != POWER_ON
    state, slot = states.boot(known, spent, is_whole)
    if state.reason == states.BOTH_BAD and _is_of_another_image(
        board.root, known, image_version, image_digest
    ):
        state = state.but(reason=states.OTHER_IMAGE)
    record.store(state)
    return slot, state


def _is_of_another_image(root, state, image_version, image_digest):
    # Whether the active bundle is not rotten, but made over another image.
    try:
        manifest = install.load_manifest(root, state.slot, state.hash)
    except OSError:
        return False
    return manifest is not None and not install.is_over_image(manifest, image_version, image_digest)


def main(board):
    # Choose and run; returns only if the application does.
    try:
        if not board.mounted:
            board.mount()
    except OSError as error:
        print("[loader] the terminal does not start on this file system:", error)
        return
    from terminal.version import VERSION

    if not _image_may_run(board):
        board.reset()
        return
    slot = _chosen(board, VERSION)
    path = None if slot == FACTORY else install.app_path(board.root, slot)
    watchdog_ms = board.options().get("watchdog_ms", _WATCHDOG_MS)
    if _is_tried(board) and watchdog_ms:
        board.wdt_start(watchdog_ms)  # an application that hangs before it starts its own has failed this try
    try:
        _launch(board, path, SLOT_NAMES[slot])
    except Exception as error:  # noqa: BLE001 - whatever an application dies of, the terminal goes on
        _tell(error)
        if slot == FACTORY and not _is_tried(board):
            return  # to the prompt; the watchdog, once started, restarts the terminal
        board.reset()  # counted at the next start
    if _is_tried(board):
        # An application that ends without confirming has failed this try.
        board.reset()


def _chosen(board, version):
    # -> the slot to run. Whatever choosing dies of, the image's own application runs and takes an update.
    board.image_version = version
    board.image_digest = fits.own_digest()
    board.on_trial = False
    board.update_pending = True
    try:
        slot, state = choose(board, version, board.image_digest)
    except Exception as error:  # noqa: BLE001 - a terminal at the prompt is a brick
        _tell(error)
        print("[loader] no application could be chosen: the factory application runs")
        return FACTORY
    board.on_trial = state.state == states.TRIAL
    board.update_pending = state.state != states.CONFIRMED or state.reason != states.NONE or state.starts > 0
    if state.reason:
        print(f"[loader] {states.NAMES[state.state]}: {states.in_words(state.reason)}")
    return slot


def _image_may_run(board):
    # Whether the firmware image that runs is the right one; always, where there is only one, or where
    # judging it fails.
    try:
        if not hasattr(board, "images") or board.images() is None:
            return True
        from . import image_boot

        return image_boot.main(board)
    except Exception as error:  # noqa: BLE001 - a terminal at the prompt is a brick
        _tell(error)
        return True


def _is_tried(board):
    return board.on_trial or getattr(board, "image_on_trial", False)


def _launch(board, path, name):
    # The factory application is the image's, as what the loader itself imported: no second copy of it in RAM.
    image = _image_path()
    if path:
        _forget_application()
    modules = _module_list(path)
    first = [path, image] if path and not modules else [image]
    sys.path[:] = first + [entry for entry in sys.path if entry not in first]
    if modules:
        _overlay(path, image, modules)
    from terminal.app import main as run_application

    run_application(board, name)


def _image_path():
    # -> where the image's own modules come from: ".frozen", or on chips that keep them in files the root
    # directory, which is "" in sys.path.
    where = sys.modules["terminal"].__path__
    if not isinstance(where, str):  # CPython has a list there
        where = where[0]
    return where[: -len("terminal")].rstrip("/")


def _module_list(path):
    # -> [["slot" or "image", module name], ...] of a bundle, None if it is a whole package.
    if not path:
        return None
    try:
        with open(path + MODULES) as file:
            return [line.split() for line in file]
    except OSError:
        return None


def _overlay(path, image, modules):
    # Import every module from where the list says. All it needs is imported before it, so no import on the
    # way looks for a file, and the place a package points to matters for one module at a time.
    for place, name in modules:
        parent = name.rpartition(".")[0]
        if parent:
            _point(parent, path if place == "slot" else image)
        __import__(name)
    for place, name in modules:
        if hasattr(sys.modules[name], "__path__"):
            _point(name, path if place == "slot" else image)


def _point(package, base):
    where = base + "/" + package.replace(".", "/")
    module = sys.modules[package]
    module.__path__ = where if sys.implementation.name == "micropython" else [where]


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
