// What the parts of this board share with each other.
#ifndef TABLESIDE_PROCESS_BOARD_H
#define TABLESIDE_PROCESS_BOARD_H

#include "board_port.h"

void console_init(void);
void flash_init(void);    // maps TABLESIDE_FLASH and its reset memory; ends the process when it cannot
void serve_lives(void);   // with TABLESIDE_SERVE: returns in a forked life, once for each request
void watchdog_init(void); // installs the watchdog's and the crash handlers

// The boot options of this start; the text must stay where it is. NULL: none.
void board_options_are(const char *text, size_t len);

#endif
