// The stock QEMU port's configuration, then what makes this board resemble an ESP32.
#include "ports/qemu/mpconfigport.h"

#undef MICROPY_PY_SYS_PLATFORM
#define MICROPY_PY_SYS_PLATFORM "tableside-qemu"
#undef MICROPY_HW_BOARD_NAME
#define MICROPY_HW_BOARD_NAME "Tableside QEMU"

// Speed options of the ESP32 port.
#define MICROPY_OPT_COMPUTED_GOTO (1)
#define MICROPY_SCHEDULER_DEPTH (8)
#define MICROPY_STACK_CHECK_MARGIN (1024)
#define MICROPY_ALLOC_PATH_MAX (128)
#define MICROPY_STREAMS_POSIX_API (1)
#define MICROPY_KBD_EXCEPTION (1)
#define MICROPY_ENABLE_SCHEDULER (1)
#define MICROPY_SCHEDULER_STATIC_NODES (1)

// The ESP32's task stack is 16 KiB.
#define BOARD_STACK_BYTES (16 * 1024)

#undef MICROPY_PY_SYS_STDIO_BUFFER
#define MICROPY_PY_SYS_STDIO_BUFFER (1)
#undef MICROPY_PY_SELECT
#define MICROPY_PY_SELECT (1)
#undef MICROPY_PY_ASYNCIO
#define MICROPY_PY_ASYNCIO (1)
#undef MICROPY_PY_TIME
#define MICROPY_PY_TIME (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS (1)
#define MICROPY_PY_TIME_INCLUDEFILE "port_time.h"
#define MICROPY_EPOCH_IS_2000 (1)

#undef MICROPY_PY_MACHINE_INCLUDEFILE
#define MICROPY_PY_MACHINE_INCLUDEFILE "port_machine.h"
#define MICROPY_PY_OS_INCLUDEFILE "port_os.h"
#define MICROPY_PY_OS_URANDOM (1)
#define MICROPY_PY_RANDOM_SEED_INIT_FUNC (board_random_u32())
#define MICROPY_PY_HASHLIB (1)
#define MICROPY_PY_HASHLIB_SHA256 (1)

// Sleeping and waking: an interrupt that comes between the check and the sleep is not lost.
void board_wait_for_event(int timeout_ms);
void board_net_poll(void);
unsigned long board_random_u32(void);
#define MICROPY_INTERNAL_WFE(TIMEOUT_MS) board_wait_for_event(TIMEOUT_MS)
#define MICROPY_INTERNAL_EVENT_HOOK board_net_poll()

static inline unsigned board_irq_disable(void) {
    unsigned status;
    __asm volatile ("csrrci %0, mstatus, 8" : "=r" (status) : : "memory");
    return status;
}
static inline void board_irq_restore(unsigned status) {
    if (status & 8) {
        __asm volatile ("csrsi mstatus, 8" : : : "memory");
    }
}
#define MICROPY_BEGIN_ATOMIC_SECTION() board_irq_disable()
#define MICROPY_END_ATOMIC_SECTION(status) board_irq_restore(status)
