// What a board gives the code that every emulated board shares.
#ifndef TABLESIDE_BOARD_PORT_H
#define TABLESIDE_BOARD_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Reset causes as the application sees them.
enum {
    BOARD_RESET_POWER_ON = 1,
    BOARD_RESET_HARD = 2,
    BOARD_RESET_WATCHDOG = 3,
    BOARD_RESET_CRASH = 4,
    BOARD_RESET_SOFT = 5,
};

// Exit codes of the emulator or of the process. 0..119 belong to poweroff(code).
enum {
    BOARD_EXIT_CUT = 120,
    BOARD_EXIT_RESET = 121,
    BOARD_EXIT_WATCHDOG = 122,
    BOARD_EXIT_CRASH = 123,
};

// Memory that outlives a reset and dies with the power.
typedef struct {
    uint32_t magic;
    uint32_t next_cause;    // reset cause the next boot will report
    uint32_t boots;         // boots since power-on
    uint32_t cut_countdown; // flash steps until the armed power cut, 0: none armed
    int32_t cut_keep;
    uint32_t cut_seed;
} board_rtc_t;

#define BOARD_RTC_MAGIC (0x7ab1e51d)

board_rtc_t *board_rtc(void);

// The NOR array as the CPU reads it, or NULL when the board has no flash.
const uint8_t *board_flash_map(void);
uint32_t board_flash_size(void);
// Overwrite bytes of the array; offset and len are multiples of four inside one 256-byte page.
void board_flash_store(uint32_t offset, const uint32_t *words, uint32_t len);
// The file system asked that everything stored so far be durable before anything later.
void board_flash_barrier(void);

// JSON text handed over at power-on; NULL when there is none.
const uint8_t *board_boot_options(size_t *len);

// Fill from the hardware entropy source; 0 or a positive errno.
int board_entropy(uint8_t *out, size_t len);

void board_watchdog_start(uint32_t timeout_ms);
void board_watchdog_feed(void);
void board_watchdog_stop(void);

uint64_t board_instructions(void); // 0 where the board cannot count them
uint64_t board_idle_us(void);
void board_network_up(void); // raises OSError
bool board_network_link(void);

void board_reset(uint32_t cause) __attribute__((noreturn));
void board_power_off(int exit_code) __attribute__((noreturn));
void board_power_cut(void) __attribute__((noreturn));

// Cause of the current life; the shared boot code sets it.
extern uint32_t board_reset_cause;

// Reads and re-arms the reset memory once per start of the program.
void board_account_boot(void);
// Frozen _boot.py, boot.py, main.py (the ESP32 port would take the last two from its files), then the REPL until a soft reset is asked for.
void board_live_once(void);

#endif
