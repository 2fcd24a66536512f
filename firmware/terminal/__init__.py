# The terminal: everything that runs on the device, from one source for MicroPython and CPython.
