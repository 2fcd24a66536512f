// QEMU TCG plugin: counts executed guest instructions into a file that the host maps and reads live.
//
//   qemu-system-riscv32 ... -plugin icount_plugin.so,out=FILE
//
// FILE then holds one unsigned 64-bit counter in the host's byte order. Debian ships no qemu-plugin.h;
// the declarations below follow the plugin interface, version 1 (QEMU 4.2 and later).
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;

enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin_id_t id, void (*translated)(plugin_id_t id, struct qemu_plugin_tb *block));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *block, int operation, void *counter, uint64_t amount);

EXPORTED int qemu_plugin_version = 1;

static uint64_t *counter;

static void count_block(plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(
        block, QEMU_PLUGIN_INLINE_ADD_U64, counter, qemu_plugin_tb_n_insns(block));
}

EXPORTED int qemu_plugin_install(plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        return 1;
    }
    int fd = open(argv[0] + 4, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof(*counter)) != 0) {
        return 1;
    }
    counter = mmap(NULL, sizeof(*counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (counter == MAP_FAILED) {
        return 1;
    }
    *counter = 0;
    qemu_plugin_register_vcpu_tb_trans_cb(id, count_block);
    return 0;
}
