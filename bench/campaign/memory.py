"""A terminal that is not started twice from the same place.

What a life does depends on the flash it begins with, on how the lives since power-on ended (the reset memory)
and on its script, and on nothing else: time is virtual, random numbers are seeded. Power cuts leave many
flashes, but recoveries meet again; from there on the rest is known. What is judged is judged anew for every
line, because it was promised something else.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from bench.campaign.machine import HUNG, Life, Machine, Script
from bench.campaign.trace import PAGE_BYTES, FlashState, Step

MOST_LIVES = 2000  # kept at once, about 25 KB each
_NOTHING_LOADED = -1

_Key = tuple[int, tuple[int, ...], str]


class Memory:
    """Lives of one machine, by heart; whoever made the machine ends it. `boots`: starts that took place."""

    def __init__(self, machine: Machine, base: FlashState, most: int = MOST_LIVES) -> None:
        self.boots = 0
        self._machine = machine
        self._most = most
        self._known: OrderedDict[_Key, Life] = OrderedDict()
        self._state = FlashState.copy_of(base)
        self._at_power_on = FlashState.copy_of(base)
        self._since: list[tuple[Script, Mapping[str, Any] | None, Life]] = []  # power-on
        self._lived = _NOTHING_LOADED  # how many of those the machine went through

    def load_state(self, state: FlashState) -> None:
        """Put this state into the flash, power off."""
        self._state = FlashState.copy_of(state)
        self._power_off()
        self._lived = _NOTHING_LOADED

    def unplug(self) -> None:
        """Take the power away: the reset memory goes."""
        is_there = self._lived == len(self._since)
        self._power_off()
        self._lived = 0 if is_there else _NOTHING_LOADED
        self._machine.unplug()

    def write(self, offset: int, data: bytes) -> None:
        """Write into the flash by cable, power off."""
        while data:
            room = PAGE_BYTES - offset % PAGE_BYTES
            self._state.apply([Step(offset, data[:room])])
            offset, data = offset + room, data[room:]
        self._power_off()
        self._lived = _NOTHING_LOADED

    def live(self, script: Script, options: Mapping[str, Any] | None = None) -> Life:
        """Start once and wait for the end, or remember. Raises: BenchError(BOARD_GONE).

        With options, which can bring in the real clock, it is never remembered.
        """
        if options:
            life = self._really(script, options)
        else:
            ends = tuple(life.exit_code for _, _, life in self._since)
            key = (self._state.hash, ends, json.dumps(script, sort_keys=True))
            found = self._known.pop(key, None)
            life = self._really(script, None) if found is None else found
            if life.exit_code != HUNG:
                self._known[key] = life
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        self._since.append((script, options, life))
        self._state.apply(life.trace.steps)
        return life

    def _power_off(self) -> None:
        self._at_power_on = FlashState.copy_of(self._state)
        self._since = []

    def _really(self, script: Script, options: Mapping[str, Any] | None) -> Life:
        if self._lived != len(self._since):
            self._machine.load_state(self._at_power_on)
            for earlier, given, _ in self._since:
                self._start(earlier, given)
        life = self._start(script, options)
        self._lived = len(self._since) + 1
        return life

    def _start(self, script: Script, options: Mapping[str, Any] | None) -> Life:
        self.boots += 1
        return self._machine.live(script, options)
