ifeq ($(TABLESIDE_BOARD),qemu_rv32)
TABLESIDE_QEMU_DIR := $(USERMOD_DIR)
SRC_USERMOD_C += $(addprefix $(TABLESIDE_QEMU_DIR)/,clock.c console.c entropy.c flash.c main.c net.c virtio.c)

# lwIP lies outside this tree; TABLESIDE_LWIP is its unpacked source, found through the search path.
vpath %.c $(dir $(TABLESIDE_LWIP))
TABLESIDE_LWIP_SRC := $(notdir $(TABLESIDE_LWIP))/src
CFLAGS_USERMOD += -DMICROPY_PY_LWIP=1 -I$(TABLESIDE_LWIP)/src/include -Wno-address
SRC_USERMOD_LIB_C += $(addprefix $(TABLESIDE_LWIP_SRC)/core/,\
	def.c dns.c inet_chksum.c init.c ip.c mem.c memp.c netif.c pbuf.c raw.c stats.c sys.c \
	tcp.c tcp_in.c tcp_out.c timeouts.c udp.c \
	ipv4/autoip.c ipv4/dhcp.c ipv4/etharp.c ipv4/icmp.c ipv4/igmp.c ipv4/ip4.c ipv4/ip4_addr.c ipv4/ip4_frag.c)
SRC_USERMOD_LIB_C += $(TABLESIDE_LWIP_SRC)/netif/ethernet.c

LDFLAGS_USERMOD += -Wl,--wrap=main -Wl,--wrap=mp_hal_stdin_rx_chr -Wl,--wrap=mp_hal_stdio_poll
endif
