// The NOR array is the file TABLESIDE_FLASH; its reset memory is the file beside it that ends in ".rtc".
//
// Both are shared mappings: what was stored survives the end of the process, however it ends.
// Whoever plays the power supply deletes the ".rtc" file when the power goes.
//
// With TABLESIDE_TRACE=file every step is appended there before it is stored: u32 offset, u32 length (both
// in the host's order), then the bytes the array holds afterwards. Length 0 is a barrier.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process_board.h"

static uint8_t *array;
static uint32_t array_bytes;
static board_rtc_t unsaved_rtc; // without a flash file, resets forget everything
static board_rtc_t *rtc = &unsaved_rtc;
static int trace = -1;

static void give_up(const char *path, const char *problem) {
    fprintf(stderr, "flash: %s: ", path);
    perror(problem);
    exit(1);
}

static void *map_file(const char *path, int flags, size_t minimum, size_t *size) {
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0644);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        give_up(path, "cannot open");
    }
    if ((size_t)status.st_size < minimum && ftruncate(fd, minimum) != 0) {
        give_up(path, "cannot extend");
    }
    *size = (size_t)status.st_size < minimum ? minimum : (size_t)status.st_size;
    void *memory = *size == 0 ? MAP_FAILED : mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        give_up(path, "cannot map");
    }
    close(fd);
    return memory;
}

void flash_init(void) {
    const char *path = getenv("TABLESIDE_FLASH");
    if (path == NULL) {
        return;
    }
    size_t size;
    array = map_file(path, 0, 0, &size);
    array_bytes = size;
    char rtc_path[4096];
    if (snprintf(rtc_path, sizeof(rtc_path), "%s.rtc", path) >= (int)sizeof(rtc_path)) {
        give_up(path, "name too long");
    }
    rtc = map_file(rtc_path, O_CREAT, sizeof(board_rtc_t), &size);
    const char *trace_path = getenv("TABLESIDE_TRACE");
    if (trace_path != NULL) {
        trace = open(trace_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (trace < 0) {
            give_up(trace_path, "cannot open");
        }
    }
}

static void note_step(uint32_t offset, const uint32_t *words, uint32_t len) {
    uint32_t entry[2 + 64] = { offset, len };
    if (trace >= 0) {
        memcpy(entry + 2, words, len);
        if (write(trace, entry, 8 + len) != (ssize_t)(8 + len)) {
            give_up("TABLESIDE_TRACE", "cannot write");
        }
    }
}

board_rtc_t *board_rtc(void) {
    return rtc;
}

const uint8_t *board_flash_map(void) {
    return array;
}

uint32_t board_flash_size(void) {
    return array_bytes;
}

void board_flash_store(uint32_t offset, const uint32_t *words, uint32_t len) {
    note_step(offset, words, len);
    memcpy(array + offset, words, len);
}

void board_flash_barrier(void) {
    note_step(0, (const uint32_t *)array, 0);
}
