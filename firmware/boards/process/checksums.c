// CRC-32 (reflected, polynomial 0x04C11DB7) eight bytes at a time, for littlefs' metadata and for binascii.
//
// A chip wants the small tables those come with. A campaign boots tens of thousands of lives, and spent a
// sixth of their time in them.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define POLYNOMIAL (0xEDB88320u)
#define AT_ONCE (8)

static uint32_t tables[AT_ONCE][256]; // tables[n][byte]: the byte's share when n more bytes follow it

__attribute__((constructor)) static void make_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        }
        tables[0][byte] = crc;
    }
    for (int n = 1; n < AT_ONCE; n++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = tables[n - 1][byte];
            tables[n][byte] = before >> 8 ^ tables[0][before & 255];
        }
    }
}

static uint32_t crc_32(uint32_t crc, const uint8_t *data, size_t size) {
    for (; size >= AT_ONCE; size -= AT_ONCE, data += AT_ONCE) {
        uint32_t low, high; // this board's hosts are little-endian, as its chips are
        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
        low ^= crc;
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24]
            ^ tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
    }
    for (; size != 0; size--, data++) {
        crc = crc >> 8 ^ tables[0][(crc ^ *data) & 255];
    }
    return crc;
}

uint32_t __wrap_lfs2_crc(uint32_t crc, const void *data, size_t size) {
    return crc_32(crc, data, size);
}

uint32_t __wrap_uzlib_crc32(const void *data, unsigned int size, uint32_t crc) {
    return crc_32(crc, data, size);
}
