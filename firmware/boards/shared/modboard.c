// Module `_board`: the hardware of an emulated board as Python sees it.
#include <string.h>

#include "py/mperrno.h"
#include "py/runtime.h"
#include "extmod/vfs.h"
#include "board_port.h"
#include "nor.h"

// ---- Flash(start, size): a block device over a range of the array ----

typedef struct {
    mp_obj_base_t base;
    uint32_t start;
    uint32_t size;
} flash_obj_t;

static mp_obj_t flash_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 2, 2, false);
    if (board_flash_map() == NULL) {
        mp_raise_OSError(MP_ENODEV);
    }
    mp_uint_t start = mp_obj_get_int(args[0]);
    mp_uint_t size = mp_obj_get_int(args[1]);
    mp_uint_t total = board_flash_size();
    if (start % NOR_SECTOR_BYTES != 0 || size % NOR_SECTOR_BYTES != 0 || start > total || size > total - start) {
        mp_raise_ValueError(MP_ERROR_TEXT("flash range"));
    }
    flash_obj_t *self = mp_obj_malloc(flash_obj_t, type);
    self->start = start;
    self->size = size;
    return MP_OBJ_FROM_PTR(self);
}

// Offset in the array of `len` bytes at (block, offset); raises when they leave the range.
static uint32_t flash_locate(const flash_obj_t *self, mp_obj_t block, mp_obj_t offset, size_t len) {
    mp_uint_t number = mp_obj_get_int(block);
    mp_uint_t extra = offset == MP_OBJ_NULL ? 0 : mp_obj_get_int(offset);
    if (number >= self->size / NOR_SECTOR_BYTES || extra > self->size || len > self->size ||
        number * NOR_SECTOR_BYTES + extra + len > self->size) {
        mp_raise_OSError(MP_EINVAL);
    }
    return self->start + number * NOR_SECTOR_BYTES + extra;
}

static mp_obj_t flash_readblocks(size_t n_args, const mp_obj_t *args) {
    const flash_obj_t *self = MP_OBJ_TO_PTR(args[0]);
    mp_buffer_info_t out;
    mp_get_buffer_raise(args[2], &out, MP_BUFFER_WRITE);
    uint32_t offset = flash_locate(self, args[1], n_args == 4 ? args[3] : MP_OBJ_NULL, out.len);
    memcpy(out.buf, board_flash_map() + offset, out.len);
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(flash_readblocks_obj, 3, 4, flash_readblocks);

// With an offset: program only. Without: erase the touched sectors first, as an ESP32 partition does.
static mp_obj_t flash_writeblocks(size_t n_args, const mp_obj_t *args) {
    const flash_obj_t *self = MP_OBJ_TO_PTR(args[0]);
    mp_buffer_info_t in;
    mp_get_buffer_raise(args[2], &in, MP_BUFFER_READ);
    uint32_t offset = flash_locate(self, args[1], n_args == 4 ? args[3] : MP_OBJ_NULL, in.len);
    if (n_args == 3) {
        for (uint32_t done = 0; done < in.len; done += NOR_SECTOR_BYTES) {
            nor_erase_sector(offset + done);
        }
    }
    nor_program(offset, in.buf, in.len);
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(flash_writeblocks_obj, 3, 4, flash_writeblocks);

static mp_obj_t flash_ioctl(mp_obj_t self_in, mp_obj_t request, mp_obj_t argument) {
    const flash_obj_t *self = MP_OBJ_TO_PTR(self_in);
    switch (mp_obj_get_int(request)) {
        case MP_BLOCKDEV_IOCTL_BLOCK_COUNT:
            return MP_OBJ_NEW_SMALL_INT(self->size / NOR_SECTOR_BYTES);
        case MP_BLOCKDEV_IOCTL_BLOCK_SIZE:
            return MP_OBJ_NEW_SMALL_INT(NOR_SECTOR_BYTES);
        case MP_BLOCKDEV_IOCTL_BLOCK_ERASE:
            nor_erase_sector(flash_locate(self, argument, MP_OBJ_NULL, NOR_SECTOR_BYTES));
            return MP_OBJ_NEW_SMALL_INT(0);
        case MP_BLOCKDEV_IOCTL_SYNC:
            board_flash_barrier();
            return MP_OBJ_NEW_SMALL_INT(0);
        default:
            return MP_OBJ_NEW_SMALL_INT(0);
    }
}
static MP_DEFINE_CONST_FUN_OBJ_3(flash_ioctl_obj, flash_ioctl);

static const mp_rom_map_elem_t flash_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_readblocks), MP_ROM_PTR(&flash_readblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_writeblocks), MP_ROM_PTR(&flash_writeblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_ioctl), MP_ROM_PTR(&flash_ioctl_obj) },
};
static MP_DEFINE_CONST_DICT(flash_locals_dict, flash_locals_table);

static MP_DEFINE_CONST_OBJ_TYPE(
    flash_type,
    MP_QSTR_Flash,
    MP_TYPE_FLAG_NONE,
    make_new, flash_make_new,
    locals_dict, &flash_locals_dict
    );

// ---- functions ----

static mp_obj_t mod_flash_stats(void) {
    mp_obj_t items[] = {
        mp_obj_new_int_from_uint(nor_stats.erases),
        mp_obj_new_int_from_uint(nor_stats.programs),
        mp_obj_new_int_from_uint(nor_stats.bytes),
        mp_obj_new_int_from_uint(nor_stats.violations),
    };
    return mp_obj_new_tuple(MP_ARRAY_SIZE(items), items);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_flash_stats_obj, mod_flash_stats);

static mp_obj_t mod_flash_times(mp_obj_t erase_us, mp_obj_t program_us) {
    nor_take_time(mp_obj_get_int(erase_us), mp_obj_get_int(program_us));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_flash_times_obj, mod_flash_times);

static mp_obj_t mod_cut_at(mp_obj_t steps, mp_obj_t keep, mp_obj_t seed) {
    nor_cut_at(mp_obj_get_int_truncated(steps), mp_obj_get_int(keep), mp_obj_get_int_truncated(seed));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(mod_cut_at_obj, mod_cut_at);

static mp_obj_t mod_boot_options(void) {
    size_t len;
    const uint8_t *text = board_boot_options(&len);
    return text == NULL ? mp_const_none : mp_obj_new_bytes(text, len);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_boot_options_obj, mod_boot_options);

static mp_obj_t mod_urandom(mp_obj_t count) {
    mp_int_t len = mp_obj_get_int(count);
    if (len < 0) {
        mp_raise_ValueError(NULL);
    }
    vstr_t out;
    vstr_init_len(&out, len);
    int error = board_entropy((uint8_t *)out.buf, len);
    if (error != 0) {
        mp_raise_OSError(error);
    }
    return mp_obj_new_bytes_from_vstr(&out);
}
MP_DEFINE_CONST_FUN_OBJ_1(mod_board_urandom_obj, mod_urandom);

static mp_obj_t mod_reset(void) {
    board_reset(BOARD_RESET_HARD);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_reset_obj, mod_reset);

static mp_obj_t mod_reset_cause(void) {
    return MP_OBJ_NEW_SMALL_INT(board_reset_cause);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_reset_cause_obj, mod_reset_cause);

static mp_obj_t mod_boots(void) {
    return mp_obj_new_int_from_uint(board_rtc()->boots);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_boots_obj, mod_boots);

static mp_obj_t mod_poweroff(size_t n_args, const mp_obj_t *args) {
    mp_int_t code = n_args == 0 ? 0 : mp_obj_get_int(args[0]);
    if (code < 0 || code >= BOARD_EXIT_CUT) {
        mp_raise_ValueError(MP_ERROR_TEXT("exit code"));
    }
    board_power_off(code);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(mod_poweroff_obj, 0, 1, mod_poweroff);

// A positive timeout starts the watchdog, 0 feeds it, a negative one stops it.
static mp_obj_t mod_wdt(mp_obj_t timeout) {
    mp_int_t timeout_ms = mp_obj_get_int(timeout);
    if (timeout_ms > 0) {
        board_watchdog_start(timeout_ms);
    } else if (timeout_ms == 0) {
        board_watchdog_feed();
    } else {
        board_watchdog_stop();
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_wdt_obj, mod_wdt);

static mp_obj_t mod_instret(void) {
    return mp_obj_new_int_from_ull(board_instructions());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_instret_obj, mod_instret);

static mp_obj_t mod_idle_us(void) {
    return mp_obj_new_int_from_ull(board_idle_us());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_idle_us_obj, mod_idle_us);

static mp_obj_t mod_net_up(void) {
    board_network_up();
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_net_up_obj, mod_net_up);

static mp_obj_t mod_net_link(void) {
    return mp_obj_new_bool(board_network_link());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_net_link_obj, mod_net_link);

static const mp_rom_map_elem_t board_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__board) },
    { MP_ROM_QSTR(MP_QSTR_Flash), MP_ROM_PTR(&flash_type) },
    { MP_ROM_QSTR(MP_QSTR_flash_stats), MP_ROM_PTR(&mod_flash_stats_obj) },
    { MP_ROM_QSTR(MP_QSTR_flash_times), MP_ROM_PTR(&mod_flash_times_obj) },
    { MP_ROM_QSTR(MP_QSTR_cut_at), MP_ROM_PTR(&mod_cut_at_obj) },
    { MP_ROM_QSTR(MP_QSTR_boot_options), MP_ROM_PTR(&mod_boot_options_obj) },
    { MP_ROM_QSTR(MP_QSTR_urandom), MP_ROM_PTR(&mod_board_urandom_obj) },
    { MP_ROM_QSTR(MP_QSTR_reset), MP_ROM_PTR(&mod_reset_obj) },
    { MP_ROM_QSTR(MP_QSTR_reset_cause), MP_ROM_PTR(&mod_reset_cause_obj) },
    { MP_ROM_QSTR(MP_QSTR_boots), MP_ROM_PTR(&mod_boots_obj) },
    { MP_ROM_QSTR(MP_QSTR_poweroff), MP_ROM_PTR(&mod_poweroff_obj) },
    { MP_ROM_QSTR(MP_QSTR_wdt), MP_ROM_PTR(&mod_wdt_obj) },
    { MP_ROM_QSTR(MP_QSTR_instret), MP_ROM_PTR(&mod_instret_obj) },
    { MP_ROM_QSTR(MP_QSTR_idle_us), MP_ROM_PTR(&mod_idle_us_obj) },
    { MP_ROM_QSTR(MP_QSTR_net_up), MP_ROM_PTR(&mod_net_up_obj) },
    { MP_ROM_QSTR(MP_QSTR_net_link), MP_ROM_PTR(&mod_net_link_obj) },
    { MP_ROM_QSTR(MP_QSTR_POWER_ON), MP_ROM_INT(BOARD_RESET_POWER_ON) },
    { MP_ROM_QSTR(MP_QSTR_HARD), MP_ROM_INT(BOARD_RESET_HARD) },
    { MP_ROM_QSTR(MP_QSTR_WATCHDOG), MP_ROM_INT(BOARD_RESET_WATCHDOG) },
    { MP_ROM_QSTR(MP_QSTR_CRASH), MP_ROM_INT(BOARD_RESET_CRASH) },
    { MP_ROM_QSTR(MP_QSTR_SOFT), MP_ROM_INT(BOARD_RESET_SOFT) },
};
static MP_DEFINE_CONST_DICT(board_globals, board_globals_table);

const mp_obj_module_t tableside_board_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&board_globals,
};
MP_REGISTER_MODULE(MP_QSTR__board, tableside_board_module);
