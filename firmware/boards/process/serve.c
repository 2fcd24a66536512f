// Many lives of one terminal without starting the program again: for campaigns that boot thousands of flash
// images. With TABLESIDE_SERVE=N this process never runs a terminal itself; it waits on stdin for requests
// and forks one life for each, from the state in which a fresh process would begin its start-up.
//
// Request: u32 flags (1: the power was off, reset memory forgotten), u32 length, boot options.
// Answers on file descriptor N: i32 process id of the life, later i32 wait status. All in the host's order.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process_board.h"

#define POWER_WAS_OFF (1)
#define MAX_OPTIONS_BYTES (65536)

static char options[MAX_OPTIONS_BYTES];
static size_t options_bytes;

// False at the end of the requests.
static bool read_all(void *out, size_t len) {
    for (size_t done = 0; done < len;) {
        ssize_t got = read(STDIN_FILENO, (char *)out + done, len - done);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static void answer(int fd, int32_t value) {
    if (write(fd, &value, sizeof(value)) != sizeof(value)) {
        _exit(1); // nobody holds the other end any more
    }
}

static void become_a_terminal(int answers, int nobody) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(answers);
    dup2(nobody, STDIN_FILENO);
    close(nobody);
    board_options_are(options, options_bytes);
}

void serve_lives(void) {
    const char *number = getenv("TABLESIDE_SERVE");
    if (number == NULL) {
        return;
    }
    int answers = atoi(number);
    int nobody = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (;;) {
        uint32_t head[2];
        if (!read_all(head, sizeof(head)) || head[1] > sizeof(options) || !read_all(options, head[1])) {
            _exit(0);
        }
        options_bytes = head[1];
        if (head[0] & POWER_WAS_OFF) {
            memset(board_rtc(), 0, sizeof(board_rtc_t));
        }
        pid_t life = fork();
        if (life == 0) {
            become_a_terminal(answers, nobody);
            return;
        }
        answer(answers, life);
        int status = 0;
        while (waitpid(life, &status, 0) < 0 && errno == EINTR) {
        }
        answer(answers, status);
    }
}
