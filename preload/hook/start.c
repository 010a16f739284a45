/* Start and end of the library in its guest. */
#include <stdlib.h>

#include "control/control.h"
#include "fd/exec.h"
#include "fd/life.h"
#include "fd/vars.h"
#include "hook/stdio.h"
#include "sys/sys.h"
#include "sys/twin.h"
#include "telemetry/log.h"
#include "weft/env.h"

/* The program is at its end: every destructor and atexit handler has run, the program's and all libraries'. libc would now
 * write what streams hold; after our goodbye nobody would read it. We stay usable. */
static void end(int status, void *unused)
{
	(void)status;
	(void)unused;
	if (atomic_load_explicit(&conn_live, memory_order_relaxed)) {
		stdio_flush();
		life_exit();
	}
	control_exit();
}

__attribute__((constructor)) static void start(void)
{
	sys_start(); /* every hook works from here on */
	if (twin_is_behind())
		return;                         /* with the mesh off, which is how we are born */
	log_start(secure_getenv(WEFT_ENV_LOG)); /* refusals can be told */
	control_start();                        /* names can be asked */
	stdio_start();
	life_start(stdio_patch); /* fork is seen */
	vars_start();
	exec_arrive(); /* what the former program left is ours */
	/* Handlers run in reverse order, and that of ld.so, which runs all destructors, is registered after this. An
	 * atexit() handler would belong to this library and run with its destructors, before those of others. */
	on_exit(end, NULL);
	at_quick_exit(life_exit);
}
