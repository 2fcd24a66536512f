// Compiler and machine facts lwIP asks for.
#ifndef TABLESIDE_LWIP_CC_H
#define TABLESIDE_LWIP_CC_H

#include <stdint.h>

#ifndef BYTE_ORDER
#define BYTE_ORDER LITTLE_ENDIAN
#endif
#define LWIP_CHKSUM_ALGORITHM 2
#define LWIP_PLATFORM_DIAG(message)
#define LWIP_PLATFORM_ASSERT(message)

#endif
