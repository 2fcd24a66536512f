# What the process image freezes: asyncio, and the folder bench/images.py put together.
# ruff: noqa: F821 - MicroPython's makemanifest.py provides the functions
include("$(MPY_DIR)/extmod/asyncio")
freeze("$(FROZEN)")
