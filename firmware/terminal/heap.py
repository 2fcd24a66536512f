# How full MicroPython's heap is.
import gc


# Bytes free after a collection, 0 where unknown.
def free():
    gc.collect()
    return gc.mem_free() if hasattr(gc, "mem_free") else 0


# Bytes after a collection; largest: the longest block one allocation can get, 0 where unknown.
def figures():
    gc.collect()
    if not hasattr(gc, "mem_free"):  # CPython
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
