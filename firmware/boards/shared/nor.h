// NOR flash: programming only clears bits, erasing works on 4 KiB sectors in 256-byte steps.
#ifndef TABLESIDE_NOR_H
#define TABLESIDE_NOR_H

#include <stdint.h>

#define NOR_PAGE_BYTES (256)
#define NOR_SECTOR_BYTES (4096)

typedef struct {
    uint32_t erases;     // sectors
    uint32_t programs;   // pages or parts of a page
    uint32_t bytes;      // programmed
    uint32_t violations; // program steps that asked for a 0 to become a 1
} nor_stats_t;

extern nor_stats_t nor_stats;

// How long a step keeps the processor waiting, as on a chip that runs from the flash it writes; 0 by default.
void nor_take_time(uint32_t erase_sector_us, uint32_t program_page_us);

void nor_erase_sector(uint32_t offset);
void nor_program(uint32_t offset, const uint8_t *data, uint32_t len);

// Power fails inside the n-th step from now (0 disarms). keep < 0: the step does nothing;
// otherwise its first `keep` bytes are done. seed != 0: every later bit is done or not at random.
void nor_cut_at(uint32_t steps, int32_t keep, uint32_t seed);

#endif
