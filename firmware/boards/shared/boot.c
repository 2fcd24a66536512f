// The start-up order every board shares; it is the ESP32 port's.
#include "py/mphal.h"
#include "py/runtime.h"
#include "shared/readline/readline.h"
#include "shared/runtime/pyexec.h"
#include "board_port.h"

uint32_t board_reset_cause;

void board_account_boot(void) {
    board_rtc_t *rtc = board_rtc();
    if (rtc->magic != BOARD_RTC_MAGIC) {
        *rtc = (board_rtc_t) { .magic = BOARD_RTC_MAGIC, .next_cause = BOARD_RESET_POWER_ON };
    }
    board_reset_cause = rtc->next_cause;
    // Whoever resets us on purpose says so first; anything else was the reset line.
    rtc->next_cause = BOARD_RESET_HARD;
    rtc->boots++;
}

void board_live_once(void) {
    readline_init0();
    pyexec_frozen_module("_boot.py", false);
    int result = pyexec_file_if_exists("boot.py");
    if (!(result & PYEXEC_FORCED_EXIT) && result != 0 && pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) {
        result = pyexec_file_if_exists("main.py");
    }
    if (!(result & PYEXEC_FORCED_EXIT)) {
        do {
            result = pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl();
        } while (result == 0);
    }
    mp_hal_stdout_tx_str("MPY: soft reboot\r\n");
}
