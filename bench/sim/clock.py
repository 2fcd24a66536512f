"""Virtual time: an event loop that never waits, and the wall clock that the server reads from it.

When nothing is ready to run, the loop jumps to the next timer. Nothing else moves its clock, so a callback
takes no time at all, and two runs with the same decisions have the same timeline to the last bit.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any

EPOCH_S = 1_800_000_000  # unix time at the start of every run

owner: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("owner", default=None)


class Deadlock(Exception):
    """Nothing is ready and no timer is set: the simulated world has stopped."""

    code = "DEADLOCK"


class Machine:
    """What can lose its power: it owns the tasks that are started while it runs.

    ``alive`` turns False at the instant of the failure. What still runs until its tasks are cancelled finds
    its wires cut and its disk frozen.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Remember a task until it ends."""
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a coroutine, and everything it starts in turn, as this machine's."""
        context = contextvars.copy_context()
        context.run(owner.set, self)
        return asyncio.get_running_loop().create_task(coroutine, context=context)

    async def bury(self) -> None:
        """Cancel what is left of a dead machine and wait until it is gone."""
        while self.tasks:
            left = list(self.tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


class _JumpingSelector(selectors.BaseSelector):
    """Waits for no descriptor; instead of waiting at all it moves the loop's clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set")
        if timeout > 0:
            self.now_s += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; ``time()`` starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.set_task_factory(_owned_task)

    def time(self) -> float:
        return self._jumping.now_s


def _owned_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    machine = context.get(owner) if context is not None else owner.get()
    if machine is not None:
        machine.adopt(task)
    return task


class WallClock:
    """The server's clock: virtual time plus an offset that faults may change."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.offset_s = 0

    def unix_time(self) -> int:
        """Whole seconds since 1970-01-01 UTC, as this machine believes."""
        return EPOCH_S + int(self._loop.time()) + self.offset_s


class Ticks:
    """Stands for the ``time`` module where the firmware reads its monotonic clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic_ns(self) -> int:
        """Virtual nanoseconds."""
        return int(self._loop.time() * 1e9)
