// The physics of NOR flash, the same on every emulated board.
//
// One step is one program of at most a page, or one 256-byte slice of a sector erase. A power cut
// falls inside a step, so both a half-programmed page and a half-erased sector can happen.
#include <string.h>

#include "py/mphal.h"
#include "board_port.h"
#include "nor.h"

nor_stats_t nor_stats;

static uint32_t erase_step_us;
static uint32_t program_step_us;

void nor_take_time(uint32_t erase_sector_us, uint32_t program_page_us) {
    erase_step_us = erase_sector_us / (NOR_SECTOR_BYTES / NOR_PAGE_BYTES);
    program_step_us = program_page_us;
}

static void wait_for_flash(uint32_t duration_us) {
    if (duration_us != 0) {
        mp_hal_delay_us(duration_us);
    }
}

void nor_cut_at(uint32_t steps, int32_t keep, uint32_t seed) {
    board_rtc_t *rtc = board_rtc();
    rtc->cut_keep = keep;
    rtc->cut_seed = seed;
    rtc->cut_countdown = steps;
}

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

// Turns the wanted outcome of a step into what an interrupted one leaves behind.
// `skip` is how many bytes of the window lie before the step's first byte.
static void tear(uint32_t *wanted, const uint8_t *before, uint32_t window, uint32_t skip) {
    const board_rtc_t *rtc = board_rtc();
    uint8_t *bytes = (uint8_t *)wanted;
    uint32_t done = rtc->cut_keep < 0 ? 0 : skip + (uint32_t)rtc->cut_keep;
    uint32_t random = rtc->cut_seed;
    for (uint32_t i = 0; i < window; i++) {
        uint8_t mask = random ? (uint8_t)next_random(&random) : 0;
        if (i >= done) {
            bytes[i] = (bytes[i] & mask) | (before[i] & ~mask);
        }
    }
}

static void finish_step(uint32_t offset, uint32_t *wanted, uint32_t window, uint32_t skip) {
    board_rtc_t *rtc = board_rtc();
    if (rtc->cut_countdown != 0 && --rtc->cut_countdown == 0) {
        tear(wanted, board_flash_map() + offset, window, skip);
        board_flash_store(offset, wanted, window);
        board_power_cut();
    }
    board_flash_store(offset, wanted, window);
}

void nor_erase_sector(uint32_t offset) {
    uint32_t blank[NOR_PAGE_BYTES / 4];
    for (uint32_t i = 0; i < NOR_PAGE_BYTES / 4; i++) {
        blank[i] = 0xffffffff;
    }
    nor_stats.erases++;
    for (uint32_t end = offset + NOR_SECTOR_BYTES; offset < end; offset += NOR_PAGE_BYTES) {
        finish_step(offset, blank, NOR_PAGE_BYTES, 0);
        wait_for_flash(erase_step_us);
    }
}

static void program_step(uint32_t offset, const uint8_t *data, uint32_t len) {
    uint32_t wanted[NOR_PAGE_BYTES / 4];
    uint32_t skip = offset & 3;
    uint32_t start = offset - skip;
    uint32_t window = (skip + len + 3) & ~3u;
    const uint32_t *before = (const uint32_t *)(board_flash_map() + start);
    wanted[0] = before[0];
    wanted[window / 4 - 1] = before[window / 4 - 1];
    memcpy((uint8_t *)wanted + skip, data, len);
    uint32_t raised = 0;
    for (uint32_t i = 0; i < window / 4; i++) {
        raised |= wanted[i] & ~before[i];
        wanted[i] &= before[i];
    }
    nor_stats.violations += raised != 0;
    nor_stats.programs++;
    nor_stats.bytes += len;
    finish_step(start, wanted, window, skip);
    wait_for_flash(program_step_us);
}

void nor_program(uint32_t offset, const uint8_t *data, uint32_t len) {
    while (len != 0) {
        uint32_t room = NOR_PAGE_BYTES - (offset & (NOR_PAGE_BYTES - 1));
        uint32_t part = len < room ? len : room;
        program_step(offset, data, part);
        offset += part;
        data += part;
        len -= part;
    }
}
