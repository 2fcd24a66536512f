# How fast an update goes beside orders: how much is asked for at once, and when flash may be written.
#
# Orders and their answers share link, processor and flash with a download. Every wait for them is bounded:
# orders that nobody answers do not keep a terminal from its update.

import asyncio

from ..compat import const, sleep_ms

WINDOW_BYTES = const(4096)  # what is asked for at once, together: one chunk is never more
_WINDOW = const(4)  # chunks asked for at once, at most
_BURST_MS = const(50)  # what is asked for at once shall not keep the link busy for longer
_PAUSE_MS = const(1000)  # how long a request, or a step, waits for orders, at most
_QUIET_MS = const(100)  # how long ago the last order was, by then
_LOOK_MS = const(20)

_SILENCE = (0, 0)


def _silence():
    return _SILENCE


class Pace:
    # traffic(): orders without an answer, and how many were answered; set by whoever has orders. window:
    # chunks to ask for.

    def __init__(self):
        self.traffic = _silence
        self.window = 1
        self._seen = _SILENCE

    async def orders_first(self):
        # Return when no order is under way and the last one is a moment ago.
        seen = self.traffic()
        if seen[0] or seen != self._seen:
            self.window = 1
            quiet_ms = waited_ms = 0
            while quiet_ms < _QUIET_MS and waited_ms < _PAUSE_MS:
                await sleep_ms(_LOOK_MS)
                waited_ms += _LOOK_MS
                now = self.traffic()
                quiet_ms = 0 if now[0] or now != seen else quiet_ms + _LOOK_MS
                seen = now
        self._seen = seen

    async def between_orders(self, steps):
        # Drive a generator to its value. Everybody else has a turn after each step, and none is begun while
        # an order waits for its answer: it may take as long as flash needs to erase a sector.
        patience_ms = _PAUSE_MS
        try:
            while True:
                while patience_ms > 0 and self.traffic()[0]:
                    await sleep_ms(_LOOK_MS)
                    patience_ms -= _LOOK_MS
                next(steps)
                await asyncio.sleep(0)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    def fit_window(self, took_ms, chunk_bytes):
        # The answer to an order placed now waits behind what was asked for: keep that short on a slow link.
        # took_ms: from the last request until all of it was stored.
        if took_ms > _BURST_MS:
            self.window = 1
        elif took_ms * 2 <= _BURST_MS:
            self.window = min(self.window * 2, _WINDOW, max(WINDOW_BYTES // chunk_bytes, 1))
