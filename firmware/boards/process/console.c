// The console on stdin and stdout, usually a pseudo terminal that the bench holds.
//
// The terminal turns Ctrl-C into SIGINT. While a program runs that interrupts it; at the prompt it is
// an ordinary character, as on a serial line.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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
mp_uint_t __real_mp_hal_stdout_tx_strn(const char *text, size_t len);
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

// The prompt's code ends lines with CR LF, print() with LF alone; the line itself adds the CR to both.
static void write_line_feeds(const char *text, size_t len) {
    const char *end = text + len;
    while (text < end) {
        const char *carriage_return = memchr(text, '\r', end - text);
        const char *stop = carriage_return == NULL ? end : carriage_return;
        __real_mp_hal_stdout_tx_strn(text, stop - text);
        if (carriage_return != NULL && (stop + 1 == end || stop[1] != '\n')) {
            __real_mp_hal_stdout_tx_strn("\r", 1);
        }
        text = carriage_return == NULL ? end : stop + 1;
    }
}

mp_uint_t __wrap_mp_hal_stdout_tx_strn(const char *text, size_t len) {
    if (!is_board) {
        return __real_mp_hal_stdout_tx_strn(text, len);
    }
    write_line_feeds(text, len);
    return len;
}

void __wrap_mp_hal_stdout_tx_strn_cooked(const char *text, size_t len) {
    __wrap_mp_hal_stdout_tx_strn(text, len);
}

void __wrap_mp_hal_stdout_tx_str(const char *text) {
    __wrap_mp_hal_stdout_tx_strn(text, strlen(text));
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
