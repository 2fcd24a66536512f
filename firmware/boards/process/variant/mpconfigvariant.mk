# Variant of the unchanged ports/unix of MicroPython 1.25.0; see bench/images.py for the make call.
MICROPY_PY_BTREE = 0
MICROPY_PY_FFI = 0
MICROPY_PY_SSL = 0
MICROPY_PY_THREAD = 0
MICROPY_PY_TERMIOS = 0
MICROPY_VFS_FAT = 0
MICROPY_VFS_LFS1 = 0
MICROPY_VFS_LFS2 = 1

# Out of the C files' folder, because the port compiles every C file that lies beside this one.
CFLAGS_EXTRA += -O2
# A build id would depend on the folder it was built in.
LDFLAGS_EXTRA += -Wl,--build-id=none
SHARED_SRC_C_EXTRA += runtime/pyexec.c
MPY_CROSS_FLAGS += -march=host
FROZEN_MANIFEST ?= $(VARIANT_DIR)/manifest.py

TABLESIDE_BOARD = process
