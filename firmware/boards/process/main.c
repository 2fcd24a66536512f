// A terminal as a process: same start-up as a chip when run without a script, else the stock unix port.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "py/cstack.h"
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/objlist.h"
#include "py/objstr.h"
#include "py/runtime.h"
#include "process_board.h"

// Pointers are twice as wide as a chip's, so 160 KiB of its objects take about 320 KiB.
#define DEFAULT_HEAP_BYTES (320 * 1024)

int __real_main(int argc, char **argv);

// ---- the rest of the board ----

static const char *boot_options;
static size_t boot_options_bytes;

void board_options_are(const char *text, size_t len) {
    boot_options = text;
    boot_options_bytes = len;
}

const uint8_t *board_boot_options(size_t *len) {
    *len = boot_options_bytes;
    return (const uint8_t *)boot_options;
}

int board_entropy(uint8_t *out, size_t len) {
    while (len != 0) {
        ssize_t got = getrandom(out, len, 0);
        if (got < 0 && errno != EINTR) {
            return errno;
        }
        if (got > 0) {
            out += got;
            len -= got;
        }
    }
    return 0;
}

uint64_t board_instructions(void) {
    return 0;
}

uint64_t board_idle_us(void) {
    return 0;
}

void board_network_up(void) {
    // The host's network is always there.
}

bool board_network_link(void) {
    return true;
}

void board_reset(uint32_t cause) {
    board_rtc()->next_cause = cause;
    switch (cause) {
        case BOARD_RESET_WATCHDOG:
            _exit(BOARD_EXIT_WATCHDOG);
        case BOARD_RESET_CRASH:
            _exit(BOARD_EXIT_CRASH);
        default:
            _exit(BOARD_EXIT_RESET);
    }
}

void board_power_off(int exit_code) {
    _exit(exit_code);
}

void board_power_cut(void) {
    static const char text[] = "\n[power cut]\n";
    ssize_t ignored = write(STDOUT_FILENO, text, sizeof(text) - 1);
    (void)ignored;
    _exit(BOARD_EXIT_CUT);
}

// ---- start ----

// True when the arguments are only "-X heapsize=N[k|m]"; 0 in *heap_bytes means a malformed size.
static bool is_board_start(int argc, char **argv, size_t *heap_bytes) {
    static const char option[] = "heapsize=";
    *heap_bytes = DEFAULT_HEAP_BYTES;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc || strcmp(argv[i], "-X") != 0 || strncmp(argv[i + 1], option, strlen(option)) != 0) {
            return false;
        }
        char *unit;
        unsigned long value = strtoul(argv[i + 1] + strlen(option), &unit, 10);
        *heap_bytes = value << (*unit == 'k' ? 10 : *unit == 'm' ? 20 : 0);
    }
    return *heap_bytes >= 32 * 1024;
}

static void init_python(char *heap, size_t heap_bytes) {
    gc_init(heap, heap + heap_bytes);
    mp_init();
    mp_sys_path = mp_obj_new_list(0, NULL);
    mp_obj_list_append(mp_sys_path, MP_OBJ_NEW_QSTR(MP_QSTR_));
    mp_obj_list_append(mp_sys_path, MP_OBJ_NEW_QSTR(MP_QSTR__dot_frozen));
    mp_obj_list_append(mp_sys_path, MP_OBJ_NEW_QSTR(MP_QSTR__slash_lib));
    mp_obj_list_init(MP_OBJ_TO_PTR(mp_sys_argv), 0);
}

static MP_NOINLINE NORETURN void run_board(size_t heap_bytes) {
    char *heap = malloc(heap_bytes);
    signal(SIGPIPE, SIG_IGN);
    const char *options = getenv("TABLESIDE_BOOT");
    board_options_are(options, options == NULL ? 0 : strlen(options));
    flash_init();
    console_init();
    watchdog_init();
    serve_lives();
    board_account_boot();
    for (;;) {
        init_python(heap, heap_bytes);
        board_live_once();
        board_watchdog_stop();
        gc_sweep_all();
        mp_deinit();
        board_reset_cause = BOARD_RESET_SOFT;
    }
}

int __wrap_main(int argc, char **argv) {
    size_t heap_bytes;
    if (!is_board_start(argc, argv, &heap_bytes)) {
        return __real_main(argc, argv);
    }
    mp_cstack_init_with_sp_here(BOARD_STACK_BYTES);
    run_board(heap_bytes);
}
