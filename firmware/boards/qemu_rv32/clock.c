// Time, sleep, the watchdog and the instruction count.
//
// One comparator serves three deadlines: the end of a sleep, lwIP's next timer and the watchdog.
#include "py/runtime.h"
#include "qemu_board.h"

#define NEVER (UINT64_MAX)

static uint64_t wake_at = NEVER;
static uint64_t net_at = NEVER;
static uint64_t watchdog_at = NEVER;
static uint64_t watchdog_ticks;
static volatile bool event_seen;
static uint64_t idle_ticks;
static uint64_t idle_counts; // in units of minstret
static int instruction_shift = -1; // minstret counts 2^shift per instruction; -1: it does not count any

uint64_t clock_now(void) {
    uint32_t high, low;
    do {
        high = MTIME_HIGH;
        low = MTIME_LOW;
    } while (high != MTIME_HIGH);
    return (uint64_t)high << 32 | low;
}

static uint64_t read_minstret(void) {
    uint32_t high, low, again;
    do {
        __asm volatile ("csrr %0, minstreth" : "=r" (high));
        __asm volatile ("csrr %0, minstret" : "=r" (low));
        __asm volatile ("csrr %0, minstreth" : "=r" (again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

// ---- deadlines; call with interrupts off ----

static void arm_comparator(void) {
    uint64_t at = wake_at < net_at ? wake_at : net_at;
    at = watchdog_at < at ? watchdog_at : at;
    MTIMECMP_HIGH = 0xffffffff; // no false match between the two halves
    MTIMECMP_LOW = (uint32_t)at;
    MTIMECMP_HIGH = (uint32_t)(at >> 32);
}

void clock_timer_irq(void) {
    uint64_t now = clock_now();
    if (now >= watchdog_at) {
        console_emit("\r\nWatchdog: not fed in time, rebooting\r\n");
        board_reset(BOARD_RESET_WATCHDOG);
    }
    if (now >= net_at) {
        net_at = NEVER;
        net_schedule();
    }
    if (now >= wake_at) {
        wake_at = NEVER;
    }
    arm_comparator();
}

void clock_set_net_deadline_ms(uint32_t delay_ms) {
    unsigned status = board_irq_disable();
    net_at = clock_now() + (uint64_t)delay_ms * MTIME_PER_MS;
    arm_comparator();
    board_irq_restore(status);
}

// ---- sleep ----

void clock_note_event(void) {
    event_seen = true;
}

// Sleeps until an interrupt or the timeout (negative: none). Returns at once when an interrupt
// came since the last call: WFI wakes on a pending interrupt even while they are masked.
void board_wait_for_event(int timeout_ms) {
    unsigned status = board_irq_disable();
    if (!event_seen && timeout_ms != 0) {
        uint64_t slept_from = clock_now();
        wake_at = timeout_ms < 0 ? NEVER : slept_from + (uint64_t)timeout_ms * MTIME_PER_MS;
        arm_comparator();
        uint64_t counted_from = read_minstret();
        __asm volatile ("wfi" : : : "memory");
        idle_counts += read_minstret() - counted_from;
        idle_ticks += clock_now() - slept_from;
        wake_at = NEVER;
        arm_comparator();
    }
    event_seen = false;
    board_irq_restore(status);
}

uint64_t board_idle_us(void) {
    return idle_ticks / MTIME_PER_US;
}

// ---- instruction count ----

#define CALIBRATION_INSTRUCTIONS (1024)

// With -icount, minstret is QEMU's virtual clock in nanoseconds: 2^shift per executed instruction,
// plus the time slept. Without it, it is the host's time stamp counter and of no use.
static int measure_instruction_shift(void) {
    int found = -1;
    for (int round = 0; round < 3; round++) {
        uint64_t from = read_minstret();
        __asm volatile (".rept 1024\n addi zero, zero, 0\n .endr" : : : "memory");
        uint64_t spent = read_minstret() - from;
        int shift = -1;
        for (int s = 0; s <= 10; s++) {
            uint64_t expected = (uint64_t)CALIBRATION_INSTRUCTIONS << s;
            if (spent >= expected && spent < expected + (64ull << s)) {
                shift = s;
            }
        }
        if (round > 0 && shift != found) {
            return -1;
        }
        found = shift;
    }
    return found;
}

uint64_t board_instructions(void) {
    return instruction_shift < 0 ? 0 : (read_minstret() - idle_counts) >> instruction_shift;
}

void clock_init(void) {
    instruction_shift = measure_instruction_shift();
    arm_comparator();
    __asm volatile ("csrs mie, %0" : : "r" (1 << IRQ_TIMER));
}

// ---- watchdog ----

void board_watchdog_start(uint32_t timeout_ms) {
    watchdog_ticks = (uint64_t)timeout_ms * MTIME_PER_MS;
    board_watchdog_feed();
}

void board_watchdog_feed(void) {
    if (watchdog_ticks != 0) {
        unsigned status = board_irq_disable();
        watchdog_at = clock_now() + watchdog_ticks;
        arm_comparator();
        board_irq_restore(status);
    }
}

void board_watchdog_stop(void) {
    unsigned status = board_irq_disable();
    watchdog_ticks = 0;
    watchdog_at = NEVER;
    arm_comparator();
    board_irq_restore(status);
}

// ---- MicroPython's clock ----

mp_uint_t mp_hal_ticks_ms(void) {
    return clock_now() / MTIME_PER_MS;
}

mp_uint_t mp_hal_ticks_us(void) {
    return clock_now() / MTIME_PER_US;
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return (mp_uint_t)read_minstret();
}

uint64_t mp_hal_time_ns(void) {
    uint32_t low = RTC_NS_LOW;
    uint32_t high = RTC_NS_HIGH;
    return (uint64_t)high << 32 | low;
}

void mp_hal_delay_us(mp_uint_t delay_us) {
    uint64_t end = clock_now() + (uint64_t)delay_us * MTIME_PER_US;
    while (clock_now() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t delay_ms) {
    uint64_t end = clock_now() + (uint64_t)delay_ms * MTIME_PER_MS;
    for (uint64_t now = clock_now(); now < end; now = clock_now()) {
        mp_event_wait_ms((end - now + MTIME_PER_MS - 1) / MTIME_PER_MS);
    }
    mp_handle_pending(true);
}
