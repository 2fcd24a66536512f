# The few places where MicroPython and CPython differ. Device modules import these names from here and nowhere
# else.
import time

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


try:
    from time import ticks_add, ticks_diff, ticks_ms, ticks_us
except ImportError:  # CPython: the same names over its monotonic clock, without the wrap-around

    def ticks_ms():
        return time.monotonic_ns() // 1000000

    def ticks_us():
        return time.monotonic_ns() // 1000

    def ticks_diff(later, earlier):
        return later - earlier

    def ticks_add(ticks, delta):
        return ticks + delta


class micropython:
    @staticmethod
    def viper(function):
        return function


def ptr8(buf):
    return memoryview(buf)


# asyncio is loaded on first use: the frozen loader needs the wire package but no event loop.
async def sleep_ms(duration_ms):
    import asyncio

    if hasattr(asyncio, "sleep_ms"):
        await asyncio.sleep_ms(duration_ms)
    else:
        await asyncio.sleep(duration_ms / 1000)
