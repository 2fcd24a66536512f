// What the parts of this board share with each other.
#ifndef TABLESIDE_PROCESS_BOARD_H
#define TABLESIDE_PROCESS_BOARD_H

#include "board_port.h"

void console_init(void);
void flash_init(void);    // maps TABLESIDE_FLASH and its reset memory; ends the process when it cannot
void watchdog_init(void); // installs the watchdog's and the crash handlers

#endif
