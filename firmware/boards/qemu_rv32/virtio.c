#include "virtio.h"

#include "machine_virt.h"

#define REGISTER(device, offset) REG32((device)->base + (offset))
#define MAGIC_VALUE (0x000)
#define VERSION (0x004)
#define DEVICE_ID (0x008)
#define DRIVER_FEATURES (0x020)
#define DRIVER_FEATURES_SELECT (0x024)
#define QUEUE_SELECT (0x030)
#define QUEUE_SIZE (0x038)
#define QUEUE_READY (0x044)
#define QUEUE_NOTIFY (0x050)
#define INTERRUPT_STATUS (0x060)
#define INTERRUPT_ACKNOWLEDGE (0x064)
#define STATUS (0x070)
#define QUEUE_DESCRIPTORS (0x080)
#define QUEUE_DRIVER (0x090)
#define QUEUE_DEVICE (0x0a0)
#define CONFIG (0x100)

#define STATUS_ACKNOWLEDGE (1)
#define STATUS_DRIVER (2)
#define STATUS_DRIVER_OK (4)
#define STATUS_FEATURES_OK (8)

#define DESCRIPTOR_DEVICE_WRITES (2)

bool virtio_open(virtio_device_t *device, uint32_t kind, uint32_t features) {
    for (int slot = VIRTIO_SLOTS - 1; slot >= 0; slot--) {
        device->base = VIRTIO_BASE(slot);
        device->irq = VIRTIO_IRQ(slot);
        if (REGISTER(device, MAGIC_VALUE) == 0x74726976 && REGISTER(device, VERSION) == 2 &&
            REGISTER(device, DEVICE_ID) == kind) {
            REGISTER(device, STATUS) = 0;
            REGISTER(device, STATUS) = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
            REGISTER(device, DRIVER_FEATURES_SELECT) = 0;
            REGISTER(device, DRIVER_FEATURES) = features;
            REGISTER(device, DRIVER_FEATURES_SELECT) = 1;
            REGISTER(device, DRIVER_FEATURES) = 1; // VIRTIO_F_VERSION_1 is bit 32
            REGISTER(device, STATUS) = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
            if (REGISTER(device, STATUS) & STATUS_FEATURES_OK) {
                return true;
            }
        }
    }
    device->base = 0;
    return false;
}

static void set_address(const virtio_device_t *device, uint32_t offset, const volatile void *address) {
    REGISTER(device, offset) = (uint32_t)address;
    REGISTER(device, offset + 4) = 0;
}

void virtio_add_queue(const virtio_device_t *device, virtq_t *queue, uint16_t number) {
    queue->number = number;
    REGISTER(device, QUEUE_SELECT) = number;
    REGISTER(device, QUEUE_SIZE) = VIRTQ_SIZE;
    set_address(device, QUEUE_DESCRIPTORS, queue->descriptors);
    set_address(device, QUEUE_DRIVER, &queue->available);
    set_address(device, QUEUE_DEVICE, &queue->used);
    REGISTER(device, QUEUE_READY) = 1;
}

void virtio_start(const virtio_device_t *device) {
    REGISTER(device, STATUS) = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
}

uint32_t virtio_config_byte(const virtio_device_t *device, uint32_t offset) {
    return REG8(device->base + CONFIG + offset);
}

void virtio_acknowledge_irq(const virtio_device_t *device) {
    if (device->base != 0) {
        REGISTER(device, INTERRUPT_ACKNOWLEDGE) = REGISTER(device, INTERRUPT_STATUS);
    }
}

void virtq_set_buffer(virtq_t *queue, uint16_t slot, void *buffer, uint32_t len, bool device_writes) {
    queue->descriptors[slot] = (virtq_descriptor_t) {
        .address = (uint32_t)buffer,
        .len = len,
        .flags = device_writes ? DESCRIPTOR_DEVICE_WRITES : 0,
    };
}

void virtq_offer(virtq_t *queue, uint16_t slot) {
    queue->available.ring[queue->available.index % VIRTQ_SIZE] = slot;
    __sync_synchronize();
    queue->available.index++;
    __sync_synchronize();
}

void virtq_notify(const virtio_device_t *device, const virtq_t *queue) {
    REGISTER(device, QUEUE_NOTIFY) = queue->number;
}

bool virtq_has_used(const virtq_t *queue) {
    return queue->seen != queue->used.index;
}

uint16_t virtq_take_used(virtq_t *queue, uint32_t *len) {
    __sync_synchronize();
    uint16_t at = queue->seen++ % VIRTQ_SIZE;
    *len = queue->used.ring[at].len;
    return queue->used.ring[at].id;
}
