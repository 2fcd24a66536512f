// virtio-net under lwIP; extmod/modlwip.c makes `socket` of it.
//
// lwIP runs outside interrupts only. While Python waits, every event polls it; while Python computes,
// an arriving frame or a due lwIP timer schedules a poll that the VM runs between two bytecodes.
#include <string.h>

#include "py/mperrno.h"
#include "py/runtime.h"
#include "lwip/dns.h"
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"
#include "qemu_board.h"
#include "virtio.h"

#define HEADER_BYTES (12) // virtio_net_hdr of virtio 1: no offloads, so always zero
#define FRAME_BYTES (HEADER_BYTES + 1514)
#define LONGEST_NAP_MS (1000)

#define FEATURE_MAC (1u << 5)
#define FEATURE_STATUS (1u << 16)
#define CONFIG_STATUS (6)
#define CONFIG_STATUS_LINK_UP (1)

int mp_mod_network_prefer_dns_use_ip_version = 4;

static virtio_device_t device;
static virtq_t receive_queue;
static virtq_t send_queue;
static uint8_t received[VIRTQ_SIZE][FRAME_BYTES] __attribute__((aligned(4)));
static uint8_t sent[VIRTQ_SIZE][FRAME_BYTES] __attribute__((aligned(4)));
static uint16_t next_send_slot;
static struct netif interface;
static bool is_up;

// ---- frames ----

static void reclaim_sent(void) {
    uint32_t len;
    while (virtq_has_used(&send_queue)) {
        virtq_take_used(&send_queue, &len);
    }
}

static err_t send_frame(struct netif *netif, struct pbuf *frame) {
    reclaim_sent();
    if ((uint16_t)(send_queue.available.index - send_queue.seen) == VIRTQ_SIZE) {
        return ERR_MEM; // every buffer still waits for QEMU; lwIP sends again later
    }
    uint16_t slot = next_send_slot++ % VIRTQ_SIZE;
    if (frame->tot_len > FRAME_BYTES - HEADER_BYTES) {
        return ERR_BUF;
    }
    pbuf_copy_partial(frame, sent[slot] + HEADER_BYTES, frame->tot_len, 0);
    virtq_set_buffer(&send_queue, slot, sent[slot], HEADER_BYTES + frame->tot_len, false);
    virtq_offer(&send_queue, slot);
    virtq_notify(&device, &send_queue);
    return ERR_OK;
}

static void receive_frames(void) {
    bool any = false;
    while (virtq_has_used(&receive_queue)) {
        uint32_t len;
        uint16_t slot = virtq_take_used(&receive_queue, &len);
        struct pbuf *frame = pbuf_alloc(PBUF_RAW, len - HEADER_BYTES, PBUF_POOL);
        if (frame != NULL) { // otherwise the frame is lost, as on a busy radio
            pbuf_take(frame, received[slot] + HEADER_BYTES, len - HEADER_BYTES);
            if (interface.input(frame, &interface) != ERR_OK) {
                pbuf_free(frame);
            }
        }
        virtq_offer(&receive_queue, slot);
        any = true;
    }
    if (any) {
        virtq_notify(&device, &receive_queue);
    }
}

// ---- who calls lwIP, and when ----

void board_net_poll(void) {
    static bool busy;
    if (!is_up || busy) {
        return;
    }
    busy = true;
    receive_frames();
    sys_check_timeouts();
    uint32_t nap_ms = sys_timeouts_sleeptime();
    clock_set_net_deadline_ms(nap_ms < LONGEST_NAP_MS ? nap_ms : LONGEST_NAP_MS);
    busy = false;
}

static void poll_node(mp_sched_node_t *node) {
    board_net_poll();
}

void net_schedule(void) {
    static mp_sched_node_t node;
    mp_sched_schedule_node(&node, poll_node);
}

void net_irq(void) {
    virtio_acknowledge_irq(&device);
    if (is_up && virtq_has_used(&receive_queue)) {
        net_schedule();
    }
}

// ---- bringing it up ----

static err_t init_interface(struct netif *netif) {
    netif->name[0] = 'v';
    netif->name[1] = 'n';
    netif->linkoutput = send_frame;
    netif->output = etharp_output;
    netif->mtu = 1500;
    netif->hwaddr_len = 6;
    for (int i = 0; i < 6; i++) {
        netif->hwaddr[i] = virtio_config_byte(&device, i);
    }
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
    return ERR_OK;
}

static void start_device(void) {
    if (!virtio_open(&device, VIRTIO_NETWORK, FEATURE_MAC | FEATURE_STATUS)) {
        mp_raise_OSError(MP_ENODEV);
    }
    virtio_add_queue(&device, &receive_queue, 0);
    virtio_add_queue(&device, &send_queue, 1);
    send_queue.available.flags = 1; // no interrupt for sent frames
    for (uint16_t slot = 0; slot < VIRTQ_SIZE; slot++) {
        virtq_set_buffer(&receive_queue, slot, received[slot], FRAME_BYTES, true);
        virtq_offer(&receive_queue, slot);
    }
    virtio_start(&device);
    virtq_notify(&device, &receive_queue);
    irq_enable(device.irq);
}

// The addresses are those of QEMU's user network: the host is 10.0.2.2.
void board_network_up(void) {
    if (is_up) {
        return;
    }
    board_random_u32(); // lwIP needs random numbers: fail here, not in the middle of a connection
    start_device();
    lwip_init();
    ip4_addr_t address, mask, gateway;
    IP4_ADDR(&address, 10, 0, 2, 15);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    IP4_ADDR(&gateway, 10, 0, 2, 2);
    netif_add(&interface, &address, &mask, &gateway, NULL, init_interface, ethernet_input);
    netif_set_default(&interface);
    netif_set_up(&interface);
    ip_addr_t name_server = IPADDR4_INIT_BYTES(10, 0, 2, 3);
    dns_setserver(0, &name_server);
    is_up = true;
    board_net_poll();
}

bool board_network_link(void) {
    return device.base != 0 && (virtio_config_byte(&device, CONFIG_STATUS) & CONFIG_STATUS_LINK_UP);
}
