// Intel command set (CFI 0001) of QEMU's pflash. The array is read like memory; every buffered
// program reaches the image file before the status says "ready".
#include "qemu_board.h"

#define BOTH_CHIPS(command) ((command) | (command) << 16)
#define COMMAND_BUFFERED_PROGRAM BOTH_CHIPS(0xe8u)
#define COMMAND_CONFIRM BOTH_CHIPS(0xd0u)
#define COMMAND_QUERY BOTH_CHIPS(0x98u)
#define COMMAND_READ_ARRAY BOTH_CHIPS(0xffu)
#define STATUS_READY BOTH_CHIPS(0x80u)
#define QUERY_WORD (0x10) // where the CFI table spells "QRY"

static bool is_present(void) {
    REG32(FLASH_BASE) = COMMAND_QUERY;
    uint32_t answer = REG32(FLASH_BASE + 4 * QUERY_WORD);
    REG32(FLASH_BASE) = COMMAND_READ_ARRAY;
    return (answer & 0xff) == 'Q';
}

const uint8_t *board_flash_map(void) {
    static enum { UNKNOWN, ABSENT, PRESENT } state;
    if (state == UNKNOWN) {
        state = is_present() ? PRESENT : ABSENT;
    }
    return state == PRESENT ? (const uint8_t *)FLASH_BASE : NULL;
}

uint32_t board_flash_size(void) {
    return FLASH_BYTES;
}

static void wait_ready(volatile uint32_t *chip) {
    while ((*chip & STATUS_READY) != STATUS_READY) {
    }
}

void board_flash_store(uint32_t offset, const uint32_t *words, uint32_t len) {
    volatile uint32_t *chip = (volatile uint32_t *)(FLASH_BASE + offset);
    uint32_t count = len / 4;
    *chip = COMMAND_BUFFERED_PROGRAM;
    wait_ready(chip);
    *chip = BOTH_CHIPS(count - 1);
    for (uint32_t i = 0; i < count; i++) {
        chip[i] = words[i];
    }
    *chip = COMMAND_CONFIRM;
    wait_ready(chip);
    *chip = COMMAND_READ_ARRAY;
}

void board_flash_barrier(void) {
    // Every store is in the array before it returns.
}
