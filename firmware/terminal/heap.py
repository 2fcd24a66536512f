# Keeps MicroPython's heap quick and says how full it is.
#
# MicroPython looks for a run of free blocks from the lowest hole on, every time. After start that means
# walking past the whole application: about 7,000 instructions for a 110-byte buffer on the 32-bit boards,
# 20 times an order. plug() fills the holes below the free end of the heap with small objects that stay;
# what is allocated later finds its place at once. Small objects could have used those holes, larger ones
# could not.
import gc

from terminal.compat import const

_FREE_RUN = const(300)  # words; a hole of this size counts as the free end
_STEP = const(32)
_PASSES = const(3)


# Returns the filling: keep it, and drop it before the next plug().
def plug():
    if not hasattr(gc, "mem_free"):  # CPython's allocator has no such walk
        return None
    chain = None
    for _ in range(_PASSES):
        gc.collect()
        edge = id((None,) * _FREE_RUN)
        while True:
            for _ in range(_STEP):
                chain = (chain, None)  # one block each
            if id(chain) > edge:
                break
    gc.collect()
    return chain


# Bytes after a collection; largest: the longest block one allocation can get, 0 where unknown.
def figures():
    gc.collect()
    if not hasattr(gc, "mem_free"):
        return {"free": 0, "used": 0, "largest": 0}
    free, used = gc.mem_free(), gc.mem_alloc()
    return {"free": free, "used": used, "largest": _largest_block(free)}


def _largest_block(free):
    low, high = 0, free
    while high - low > 64:
        size = (low + high) // 2
        try:
            bytearray(size)
            low = size
        except MemoryError:
            high = size
        gc.collect()
    return low
