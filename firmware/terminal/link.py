# How long to wait before the next attempt to connect.
#
# The delay doubles from base_ms to cap_ms, and half of it is random, so that a room full of terminals does
# not return in one instant after the broker restarts. Only a connection that lived for a while starts it
# anew: a broker that accepts and closes at once is met with growing patience.


class Backoff:
    # random(n) -> n random bytes.
    def __init__(self, random, base_ms=250, cap_ms=15000, stable_ms=4000):
        self._random = random
        self.base_ms = base_ms
        self.cap_ms = cap_ms
        self.stable_ms = stable_ms
        self._delay_ms = base_ms

    # The next delay, in base_ms/2 .. cap_ms.
    def next_ms(self):
        delay = self._delay_ms
        self._delay_ms = min(delay * 2, self.cap_ms)
        draw = self._random(2)
        half = delay // 2
        return half + (delay - half) * (draw[0] << 8 | draw[1]) // 65535

    # Tell how long the last connection was usable.
    def lived(self, duration_ms):
        if duration_ms >= self.stable_ms:
            self._delay_ms = self.base_ms

    def reset(self):
        self._delay_ms = self.base_ms
