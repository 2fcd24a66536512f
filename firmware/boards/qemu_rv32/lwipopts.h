// lwIP without an operating system, sized like ESP-IDF's defaults.
#ifndef TABLESIDE_LWIPOPTS_H
#define TABLESIDE_LWIPOPTS_H

#include <stdint.h>
#include "py/mpconfig.h"
#include "py/misc.h"
#include "py/mphal.h"

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 1
typedef uint32_t sys_prot_t;
// Nothing touches lwIP from an interrupt, so its critical sections need no protection.
#define SYS_ARCH_DECL_PROTECT(level)
#define SYS_ARCH_PROTECT(level)
#define SYS_ARCH_UNPROTECT(level)
#define MEM_ALIGNMENT 4
#define LWIP_ARP 1
#define LWIP_ETHERNET 1
#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_DHCP 1
#define LWIP_DNS 1
#define LWIP_IGMP 1
#define LWIP_RAW 1
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_STATS 0
#define SO_REUSE 1
#define TCP_LISTEN_BACKLOG 1
#define MEM_SIZE 16000
#define TCP_MSS 1460
#define TCP_WND (4 * TCP_MSS)
#define TCP_SND_BUF (4 * TCP_MSS)
#define MEMP_NUM_TCP_SEG 32
#define LWIP_RAND() ((uint32_t)board_random_u32())
#define sys_now mp_hal_ticks_ms

#endif
