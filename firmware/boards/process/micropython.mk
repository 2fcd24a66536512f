ifeq ($(TABLESIDE_BOARD),process)
TABLESIDE_PROCESS_DIR := $(USERMOD_DIR)
SRC_USERMOD_C += $(addprefix $(TABLESIDE_PROCESS_DIR)/,checksums.c console.c flash.c frozen.c main.c serve.c watchdog.c)
LDFLAGS_USERMOD += -Wl,--wrap=main -Wl,--wrap=mp_hal_stdin_rx_chr -Wl,--wrap=mp_hal_set_interrupt_char
LDFLAGS_USERMOD += -Wl,--wrap=mp_hal_stdout_tx_str -Wl,--wrap=mp_hal_stdout_tx_strn
LDFLAGS_USERMOD += -Wl,--wrap=mp_hal_stdout_tx_strn_cooked
LDFLAGS_USERMOD += -Wl,--wrap=mp_find_frozen_module
LDFLAGS_USERMOD += -Wl,--wrap=lfs2_crc -Wl,--wrap=uzlib_crc32
LDFLAGS_USERMOD += -Wl,--wrap=mp_hal_stdio_mode_raw -Wl,--wrap=mp_hal_stdio_mode_orig
endif
