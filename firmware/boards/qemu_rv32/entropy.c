// Random bytes from virtio-rng. There is no other source: without the device everything that needs
// randomness fails with ENODEV.
#include <string.h>

#include "py/mperrno.h"
#include "py/runtime.h"
#include "qemu_board.h"
#include "virtio.h"

#define POOL_BYTES (256)
#define TIMEOUT_MS (2000)

static virtio_device_t device;
static virtq_t requests;
static uint8_t pool[POOL_BYTES];
static uint32_t pool_left;

void entropy_irq(void) {
    virtio_acknowledge_irq(&device);
}

static bool open_device(void) {
    if (device.base == 0) {
        if (!virtio_open(&device, VIRTIO_ENTROPY, 0)) {
            return false;
        }
        virtio_add_queue(&device, &requests, 0);
        virtq_set_buffer(&requests, 0, pool, sizeof(pool), true);
        virtio_start(&device);
        irq_enable(device.irq);
    }
    return true;
}

// A late answer to a request that timed out is taken as the answer to the next call.
static int refill(void) {
    static bool asked;
    if (!open_device()) {
        return MP_ENODEV;
    }
    if (!asked) {
        virtq_offer(&requests, 0);
        virtq_notify(&device, &requests);
        asked = true;
    }
    uint64_t deadline = clock_now() + (uint64_t)TIMEOUT_MS * MTIME_PER_MS;
    while (!virtq_has_used(&requests)) {
        if (clock_now() >= deadline) {
            return MP_ETIMEDOUT;
        }
        board_wait_for_event(10);
    }
    uint32_t len;
    virtq_take_used(&requests, &len);
    asked = false;
    pool_left = len < POOL_BYTES ? len : POOL_BYTES;
    return pool_left == 0 ? MP_EIO : 0;
}

int board_entropy(uint8_t *out, size_t len) {
    while (len != 0) {
        if (pool_left == 0) {
            int error = refill();
            if (error != 0) {
                return error;
            }
        }
        size_t part = len < pool_left ? len : pool_left;
        pool_left -= part;
        memcpy(out, pool + pool_left, part);
        memset(pool + pool_left, 0, part); // handed out once
        out += part;
        len -= part;
    }
    return 0;
}

unsigned long board_random_u32(void) {
    uint32_t value;
    int error = board_entropy((uint8_t *)&value, sizeof(value));
    if (error != 0) {
        mp_raise_OSError(error);
    }
    return value;
}
