// Virtio over memory-mapped registers (virtio 1.1 section 4.2) with small split queues (2.6).
#ifndef TABLESIDE_VIRTIO_H
#define TABLESIDE_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#define VIRTQ_SIZE (16)

typedef struct {
    uint64_t address;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
} virtq_descriptor_t;

typedef struct {
    virtq_descriptor_t descriptors[VIRTQ_SIZE] __attribute__((aligned(16)));
    struct {
        uint16_t flags;
        uint16_t index;
        uint16_t ring[VIRTQ_SIZE];
    } available __attribute__((aligned(4)));
    volatile struct {
        uint16_t flags;
        uint16_t index;
        struct {
            uint32_t id;
            uint32_t len;
        } ring[VIRTQ_SIZE];
    } used __attribute__((aligned(4)));
    uint16_t seen; // used entries taken so far
    uint16_t number;
} virtq_t;

typedef struct {
    uint32_t base; // 0: not found yet
    uint32_t irq;
} virtio_device_t;

enum { VIRTIO_NETWORK = 1, VIRTIO_ENTROPY = 4 };

// Finds the device and negotiates VIRTIO_F_VERSION_1 and the given low feature bits.
bool virtio_open(virtio_device_t *device, uint32_t kind, uint32_t features);
void virtio_add_queue(const virtio_device_t *device, virtq_t *queue, uint16_t number);
void virtio_start(const virtio_device_t *device);
uint32_t virtio_config_byte(const virtio_device_t *device, uint32_t offset);
void virtio_acknowledge_irq(const virtio_device_t *device);

// One buffer per slot; the slot is the descriptor.
void virtq_set_buffer(virtq_t *queue, uint16_t slot, void *buffer, uint32_t len, bool device_writes);
void virtq_offer(virtq_t *queue, uint16_t slot);
void virtq_notify(const virtio_device_t *device, const virtq_t *queue);
bool virtq_has_used(const virtq_t *queue);
uint16_t virtq_take_used(virtq_t *queue, uint32_t *len);

#endif
