// Registers of QEMU's RISC-V `virt` machine (hw/riscv/virt.c gives the map, each device its own manual).
#ifndef TABLESIDE_MACHINE_VIRT_H
#define TABLESIDE_MACHINE_VIRT_H

#include <stdint.h>

#define REG8(address) (*(volatile uint8_t *)(address))
#define REG32(address) (*(volatile uint32_t *)(address))

// SiFive test device: resets or ends the machine.
#define TEST_DEVICE REG32(0x00100000)
#define TEST_RESET (0x7777)
#define TEST_EXIT_OK (0x5555)
#define TEST_EXIT_FAIL(code) ((uint32_t)(code) << 16 | 0x3333)

// Goldfish RTC: nanoseconds since 1970; reading the low word latches the high one.
#define RTC_NS_LOW REG32(0x00101000)
#define RTC_NS_HIGH REG32(0x00101004)

// CLINT timer, 10 MHz.
#define MTIMECMP_LOW REG32(0x02004000)
#define MTIMECMP_HIGH REG32(0x02004004)
#define MTIME_LOW REG32(0x0200bff8)
#define MTIME_HIGH REG32(0x0200bffc)
#define MTIME_PER_MS (10000)
#define MTIME_PER_US (10)

// PLIC, hart 0 in machine mode.
#define PLIC_PRIORITY(irq) REG32(0x0c000000 + 4 * (irq))
#define PLIC_ENABLE(irq) REG32(0x0c002000 + 4 * ((irq) / 32))
#define PLIC_THRESHOLD REG32(0x0c200000)
#define PLIC_CLAIM REG32(0x0c200004)

// 16550 UART.
#define UART_IRQ (10)
#define UART_DATA REG8(0x10000000)
#define UART_INTERRUPTS REG8(0x10000001)
#define UART_FIFO REG8(0x10000002)
#define UART_STATUS REG8(0x10000005)
#define UART_STATUS_READY (0x01)
#define UART_STATUS_CAN_SEND (0x20)

// Eight virtio transports; QEMU fills them from the last one down.
#define VIRTIO_SLOTS (8)
#define VIRTIO_BASE(slot) (0x10001000 + 0x1000 * (slot))
#define VIRTIO_IRQ(slot) (1 + (slot))

// Second CFI flash bank: two 16-bit Intel chips side by side.
#define FLASH_BASE (0x22000000)
#define FLASH_BYTES (0x02000000)

// Interrupt bits of mie and mcause.
#define IRQ_TIMER (7)
#define IRQ_EXTERNAL (11)

#endif
