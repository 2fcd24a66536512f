// Included by extmod/modtime.c. The epoch is 2000, as on the ESP32; the clock is QEMU's Goldfish RTC.
#include "py/mphal.h"
#include "shared/timeutils/timeutils.h"

static mp_uint_t seconds_since_2000(void) {
    return mp_hal_time_ns() / 1000000000ULL - TIMEUTILS_SECONDS_1970_TO_2000;
}

static mp_obj_t mp_time_localtime_get(void) {
    timeutils_struct_time_t now;
    timeutils_seconds_since_2000_to_struct_time(seconds_since_2000(), &now);
    mp_obj_t items[] = {
        mp_obj_new_int(now.tm_year), mp_obj_new_int(now.tm_mon), mp_obj_new_int(now.tm_mday),
        mp_obj_new_int(now.tm_hour), mp_obj_new_int(now.tm_min), mp_obj_new_int(now.tm_sec),
        mp_obj_new_int(now.tm_wday), mp_obj_new_int(now.tm_yday),
    };
    return mp_obj_new_tuple(MP_ARRAY_SIZE(items), items);
}

static mp_obj_t mp_time_time_get(void) {
    return mp_obj_new_int_from_uint(seconds_since_2000());
}
