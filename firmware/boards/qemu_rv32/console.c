// The serial console: interrupt-driven input with Ctrl-C, polled output.
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"
#include "qemu_board.h"

#define INPUT_BYTES (1024)

static uint8_t input[INPUT_BYTES];
static volatile uint16_t input_read;
static volatile uint16_t input_write;

void console_init(void) {
    UART_FIFO = 0x87; // on, both cleared, interrupt at eight bytes or after a pause
    UART_INTERRUPTS = 1;
    irq_enable(UART_IRQ);
}

void console_irq(void) {
    while (UART_STATUS & UART_STATUS_READY) {
        uint16_t next = (input_write + 1) % INPUT_BYTES;
        if (next == input_read) {
            UART_INTERRUPTS = 0; // full: QEMU holds the sender back until someone reads
            return;
        }
        uint8_t c = UART_DATA;
        if (c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            input[input_write] = c;
            input_write = next;
        }
    }
}

void console_emit(const char *text) {
    while (*text != 0) {
        while (!(UART_STATUS & UART_STATUS_CAN_SEND)) {
        }
        UART_DATA = *text++;
    }
}

// The linker puts these in the place of the port's, which poll without sleeping.

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t flags) {
    uintptr_t ready = flags & MP_STREAM_POLL_WR;
    if (input_read != input_write) {
        ready |= flags & MP_STREAM_POLL_RD;
    }
    return ready;
}

int __wrap_mp_hal_stdin_rx_chr(void) {
    while (input_read == input_write) {
        mp_event_wait_indefinite();
    }
    int c = input[input_read];
    input_read = (input_read + 1) % INPUT_BYTES;
    UART_INTERRUPTS = 1;
    return c;
}
