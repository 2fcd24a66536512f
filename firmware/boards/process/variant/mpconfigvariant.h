// The unix port with the feature level of the other boards.
#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)
#include "ports/unix/variants/mpconfigvariant_common.h"

#define MICROPY_HW_BOARD_NAME "Tableside process"
#define MICROPY_HW_MCU_NAME "host"

// Ctrl-C waits for the VM: raising from inside a signal handler could tear a data structure apart.
#undef MICROPY_ASYNC_KBD_INTR
#define MICROPY_ASYNC_KBD_INTR (0)
#define MICROPY_KBD_EXCEPTION (1)
#define MICROPY_SCHEDULER_DEPTH (8)
#define MICROPY_STACK_CHECK_MARGIN (1024)

// 16 KiB on a 32-bit chip; pointers are twice as wide here.
#define BOARD_STACK_BYTES (32 * 1024)
