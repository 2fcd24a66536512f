// The watchdog is an interval timer; a fault of the process is this board's Guru Meditation.
// Both only write and leave: nothing else is safe in a signal handler.
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "process_board.h"

static uint32_t timeout_ms;
static uint8_t fault_stack[16384];

static void last_words(const char *text) {
    ssize_t ignored = write(STDOUT_FILENO, text, strlen(text));
    (void)ignored;
}

static void on_alarm(int signal_number) {
    last_words("\nWatchdog: not fed in time, rebooting\n");
    board_reset(BOARD_RESET_WATCHDOG);
}

static void on_fault(int signal_number) {
    char text[] = "\nGuru Meditation: signal 00\n";
    text[sizeof(text) - 4] = '0' + signal_number / 10 % 10;
    text[sizeof(text) - 3] = '0' + signal_number % 10;
    last_words(text);
    board_reset(BOARD_RESET_CRASH);
}

void watchdog_init(void) {
    struct sigaction alarm_action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &alarm_action, NULL);
    stack_t stack = { .ss_sp = fault_stack, .ss_size = sizeof(fault_stack) };
    sigaltstack(&stack, NULL);
    struct sigaction fault_action = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };
    const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        sigaction(faults[i], &fault_action, NULL);
    }
}

void board_watchdog_start(uint32_t new_timeout_ms) {
    timeout_ms = new_timeout_ms;
    struct itimerval timer = { .it_value = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 } };
    setitimer(ITIMER_REAL, &timer, NULL);
}

void board_watchdog_feed(void) {
    if (timeout_ms != 0) {
        board_watchdog_start(timeout_ms);
    }
}

void board_watchdog_stop(void) {
    board_watchdog_start(0);
}
