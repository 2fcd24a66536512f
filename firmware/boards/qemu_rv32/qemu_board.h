// What the parts of this board share with each other.
#ifndef TABLESIDE_QEMU_BOARD_H
#define TABLESIDE_QEMU_BOARD_H

#include <stdint.h>
#include "py/mphal.h"
#include "board_port.h"
#include "machine_virt.h"

// clock.c
uint64_t clock_now(void); // 10 MHz ticks
void clock_init(void);
void clock_timer_irq(void);
void clock_note_event(void);
void clock_set_net_deadline_ms(uint32_t delay_ms);

// console.c
void console_init(void);
void console_irq(void);
void console_emit(const char *text); // polled, for last words

// main.c
void irq_enable(uint32_t irq);

// net.c
void net_irq(void);
void net_schedule(void);

// entropy.c
void entropy_irq(void);

#endif
