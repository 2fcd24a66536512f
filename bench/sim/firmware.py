"""The firmware's modules inside this process, and the few places where they touch the real world.

``installed`` puts virtual time, the simulated network and a direct RSA power into the firmware's modules for
the length of a run and takes them out again. Private RSA operations are computed by CPython's ``pow``
instead of the device's step-by-step window: the same number, always in the same number of steps, so that
keys made anew on another machine do not change the order of events.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from bench import provision
from bench.paths import ROOT
from bench.sim.clock import Ticks
from bench.sim.keys import loaded_pem, parse_pem
from bench.sim.network import Network, Socket
from server.devices import keyfiles

# Modules of the firmware that sweep their heap by themselves.
COLLECTING = ("terminal.app", "terminal.control", "terminal.heap", "terminal.requests", "terminal.sender")
_SOURCE = str(ROOT / "firmware")


def module(name: str) -> Any:
    """A module of the firmware or of its host board by its own name, such as ``terminal.app``."""
    if _SOURCE not in sys.path:
        sys.path.insert(0, _SOURCE)
    return import_module(name)


@contextmanager
def replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute, for a while."""
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def _direct_power(self: Any, base: int, _random: Callable[[int], bytes]) -> Generator[None, None, int]:
    yield
    at_p = pow(base, self._dp, self._p)
    at_q = pow(base, self._dq, self._q)
    return int(at_q + (self._qi * (at_p - at_q) % self._p) * self._q)


@contextmanager
def installed(network: Network) -> Iterator[None]:
    """The firmware lives in the simulated world while this context is open."""
    quiet_gc = SimpleNamespace(collect=lambda: None)  # twenty heaps in one: the process collects by itself
    with ExitStack() as stack:
        stack.enter_context(replaced(module("terminal.compat"), "time", Ticks(network.loop)))
        client = module("terminal.mqtt.client")
        stack.enter_context(replaced(client, "Transport", lambda _host, port: Socket(network, port)))
        stack.enter_context(replaced(keyfiles, "parse_pem", parse_pem))
        stack.enter_context(replaced(provision, "load_pem_private_key", loaded_pem))
        private = module("terminal.wire.rsa").PrivateKey
        stack.enter_context(replaced(private, "power_steps", _direct_power))
        for name in COLLECTING:
            stack.enter_context(replaced(module(name), "gc", quiet_gc))
        yield
