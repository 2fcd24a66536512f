// Included by extmod/modos.c: os.urandom() draws from the hardware or raises OSError.
MP_DECLARE_CONST_FUN_OBJ_1(mod_board_urandom_obj);
#define mp_os_urandom_obj mod_board_urandom_obj
