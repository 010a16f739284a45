/* The library loaded twice by two paths: to ld.so they are two, and both would seal what the program writes. */
#ifndef SYS_TWIN_H
#define SYS_TWIN_H

#include <stdbool.h>

/* Our calls lead to another libweft.so, which then does the work. After sys_start(). */
bool twin_is_behind(void);

#endif
