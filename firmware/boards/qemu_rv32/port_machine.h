// Included by extmod/modmachine.c.
#include "board_port.h"

static void mp_machine_idle(void) {
    board_wait_for_event(1);
}

NORETURN static void mp_machine_reset(void) {
    board_reset(BOARD_RESET_HARD);
}

static mp_int_t mp_machine_reset_cause(void) {
    return board_reset_cause;
}
