# Board for the unchanged ports/qemu of MicroPython 1.25.0; see bench/images.py for the make call.
QEMU_ARCH = riscv32
QEMU_MACHINE = virt

# Debian's riscv64-unknown-elf-gcc 12 has no rv32 library with Zicsr in its name: with the port's
# default it links the 64-bit libgcc. ISA specification 2.2 counts the CSR instructions to "i".
RV32_ARCH = rv32imac -misa-spec=2.2

CFLAGS += -DQEMU_SOC_VIRT
CFLAGS += -DMICROPY_HW_MCU_NAME='"rv32imac"'
CFLAGS += -DMP_CONFIGFILE='<mpconfig_qemu_rv32.h>' -I$(BOARD_DIR)
# The ESP32 port compiles with -O2, too; the port's own -Os stands before this.
CFLAGS_EXTRA += -O2
# Hardware hashes on an ESP32; here the C code is at least unrolled.
$(BUILD)/extmod/modhashlib.o: CFLAGS += -O3 -funroll-loops

LDSCRIPT = $(BOARD_DIR)/virt.ld
SRC_BOARD_O += shared/runtime/gchelper_native.o shared/runtime/gchelper_rv32i.o
SRC_C += shared/timeutils/timeutils.c
MPY_CROSS_FLAGS += -march=rv32imc

# 160 KiB, what an ESP32 leaves to the application.
MICROPY_HEAP_SIZE = 163840
MICROPY_VFS_LFS2 = 1
FROZEN_MANIFEST ?= $(BOARD_DIR)/manifest.py

TABLESIDE_BOARD = qemu_rv32
