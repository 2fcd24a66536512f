// Start-up, traps and resets of the QEMU board. The linker puts this main() in the port's place.
#include <string.h>

#include "py/cstack.h"
#include "py/gc.h"
#include "py/runtime.h"
#include "qemu_board.h"

static char heap[MICROPY_HEAP_SIZE] __attribute__((aligned(16)));

// ---- memory outside the program, see virt.ld ----

extern board_rtc_t _board_rtc_memory;
// What the bench's loader device puts here at every start: magic, big-endian length, text.
extern const struct {
    char magic[4];
    uint32_t len;
    uint8_t text[];
} _board_options;

#define OPTIONS_MAX_BYTES (0x10000 - 8)

board_rtc_t *board_rtc(void) {
    return &_board_rtc_memory;
}

const uint8_t *board_boot_options(size_t *len) {
    static const char magic[4] = { 'T', 'S', 'E', 'F' };
    uint32_t text_bytes = __builtin_bswap32(_board_options.len);
    if (memcmp(_board_options.magic, magic, sizeof(magic)) != 0 || text_bytes > OPTIONS_MAX_BYTES) {
        return NULL;
    }
    *len = text_bytes;
    return _board_options.text;
}

// ---- the ways a life ends ----

void board_reset(uint32_t cause) {
    board_rtc()->next_cause = cause;
    TEST_DEVICE = TEST_RESET;
    for (;;) {
    }
}

void board_power_off(int exit_code) {
    TEST_DEVICE = exit_code == 0 ? TEST_EXIT_OK : TEST_EXIT_FAIL(exit_code);
    for (;;) {
    }
}

void board_power_cut(void) {
    console_emit("\r\n[power cut]\r\n");
    board_power_off(BOARD_EXIT_CUT);
}

// ---- traps ----

void irq_enable(uint32_t irq) {
    PLIC_PRIORITY(irq) = 1;
    PLIC_ENABLE(irq) |= 1u << (irq % 32);
}

static void emit_register(const char *name, uint32_t value) {
    char digits[9];
    for (int i = 0; i < 8; i++) {
        digits[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    }
    digits[8] = 0;
    console_emit(name);
    console_emit(digits);
}

static void external_irq(void) {
    for (uint32_t irq = PLIC_CLAIM; irq != 0; irq = PLIC_CLAIM) {
        if (irq == UART_IRQ) {
            console_irq();
        } else {
            net_irq();
            entropy_irq();
        }
        PLIC_CLAIM = irq;
    }
}

static void fault(uint32_t cause) {
    uint32_t pc, address;
    __asm volatile ("csrr %0, mepc" : "=r" (pc));
    __asm volatile ("csrr %0, mtval" : "=r" (address));
    emit_register("\r\nGuru Meditation: mcause=", cause);
    emit_register(" mepc=", pc);
    emit_register(" mtval=", address);
    console_emit("\r\n");
    board_reset(BOARD_RESET_CRASH);
}

static void __attribute__((interrupt("machine"), aligned(4))) trap(void) {
    uint32_t cause;
    __asm volatile ("csrr %0, mcause" : "=r" (cause));
    if (cause == (0x80000000u | IRQ_TIMER)) {
        clock_timer_irq();
    } else if (cause == (0x80000000u | IRQ_EXTERNAL)) {
        external_irq();
    } else {
        fault(cause);
    }
    clock_note_event();
}

// ---- start ----

static void start_hardware(void) {
    board_irq_disable();
    __asm volatile ("csrw mtvec, %0" : : "r" (&trap));
    PLIC_THRESHOLD = 0;
    __asm volatile ("csrs mie, %0" : : "r" (1 << IRQ_EXTERNAL));
    clock_init();
    console_init();
    board_irq_restore(8);
}

int __wrap_main(int argc, char **argv) {
    board_account_boot();
    start_hardware();
    mp_cstack_init_with_sp_here(BOARD_STACK_BYTES);
    for (;;) {
        gc_init(heap, heap + sizeof(heap));
        mp_init();
        board_live_once();
        board_watchdog_stop();
        gc_sweep_all();
        mp_deinit();
        board_reset_cause = BOARD_RESET_SOFT;
    }
}
