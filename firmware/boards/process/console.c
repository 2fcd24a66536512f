// The console on stdin and stdout, usually a pseudo terminal that the bench holds.
//
// The terminal turns Ctrl-C into SIGINT. While a program runs that interrupts it; at the prompt it is
// an ordinary character, as on a serial line.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "py/mphal.h"
#include "py/runtime.h"
#include "process_board.h"

#define CTRL_C (3)

static bool is_board;
static volatile sig_atomic_t interrupt_char = -1;
static volatile sig_atomic_t typed_ctrl_c;

int __real_mp_hal_stdin_rx_chr(void);
void __real_mp_hal_set_interrupt_char(char c);
void __real_mp_hal_stdio_mode_raw(void);
void __real_mp_hal_stdio_mode_orig(void);

static void on_sigint(int signal_number) {
    if (interrupt_char == CTRL_C) {
        mp_sched_keyboard_interrupt();
    } else {
        typed_ctrl_c = 1;
    }
}

void console_init(void) {
    is_board = true;
    struct sigaction action = { .sa_handler = on_sigint };
    sigaction(SIGINT, &action, NULL); // no SA_RESTART: a blocked read returns
    struct termios line;
    if (tcgetattr(STDIN_FILENO, &line) == 0) {
        line.c_iflag &= ~(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
        line.c_oflag |= OPOST | ONLCR; // a serial console ends lines with CR LF
        line.c_lflag = ISIG | NOFLSH;
        line.c_cc[VINTR] = CTRL_C;
        line.c_cc[VQUIT] = line.c_cc[VSUSP] = _POSIX_VDISABLE;
        line.c_cc[VMIN] = 1;
        line.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &line);
    }
}

int __wrap_mp_hal_stdin_rx_chr(void) {
    if (!is_board) {
        return __real_mp_hal_stdin_rx_chr();
    }
    for (;;) {
        if (typed_ctrl_c) {
            typed_ctrl_c = 0;
            return CTRL_C;
        }
        unsigned char c;
        ssize_t got = read(STDIN_FILENO, &c, 1);
        if (got == 1) {
            return c == '\n' ? '\r' : c;
        }
        if (got == 0 || errno != EINTR) {
            board_power_off(0); // nobody holds the console any more
        }
        mp_handle_pending(true);
    }
}

void __wrap_mp_hal_set_interrupt_char(char c) {
    if (is_board) {
        interrupt_char = (signed char)c;
    } else {
        __real_mp_hal_set_interrupt_char(c);
    }
}

// The line stays as console_init() set it; the stock port switches it around every command.

void __wrap_mp_hal_stdio_mode_raw(void) {
    if (!is_board) {
        __real_mp_hal_stdio_mode_raw();
    }
}

void __wrap_mp_hal_stdio_mode_orig(void) {
    if (!is_board) {
        __real_mp_hal_stdio_mode_orig();
    }
}
