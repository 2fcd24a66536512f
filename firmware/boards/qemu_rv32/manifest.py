# What the QEMU image freezes: asyncio, and the folder bench/images.py put together.
include("$(MPY_DIR)/extmod/asyncio")
freeze("$(FROZEN)")
