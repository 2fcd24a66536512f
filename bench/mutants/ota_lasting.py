"""Planted bugs about starts that last: trials without a network, the self-test, crash loops, rotten slots."""

from __future__ import annotations

from bench.mutants.planted import change

LASTING = (
    change(
        "starts without a network spent",
        "ota/hook.py",
        "alone",
        ("            parts.append(self._watch_start())", "            pass"),
    ),
    change(
        "start given back before the self-test",
        "ota/hook.py",
        "alone",
        (
            "        if not self._is_tried() or self.is_sound():\n            self._last()",
            "        self._last()",
        ),
    ),
    change(
        "confirmed without the self-test",
        "ota/hook.py",
        "unfit",
        ("        if self._is_tried() and not self.is_sound():", "        if False:"),
    ),
    change(
        "confirmed by a start that lasted",
        "ota/agent.py",
        "alone",
        (
            "        after = states.lasted(state)",
            "        after = (states.confirmed if state.state == states.TRIAL else states.lasted)(state)",
        ),
    ),
    change(
        "rotten slot quarantined",
        "ota/states.py",
        "slots",
        ("        return rotted(state)", "        return rolled_back(state, SLOT_BAD)"),
    ),
    change(
        "starts after a crash not stored",
        "ota/states.py",
        "crash",
        ("        return state.but(starts=state.starts + 1)", "        return state"),
    ),
    change(
        "starts after a crash never forgotten",
        "ota/states.py",
        "restart",
        (
            "    return state.but(starts=0) if state.starts and state.state != ARMED else state",
            "    return state",
        ),
    ),
)
