/* Start and end of the library in its guest. */
#include <stdlib.h>

#include "control/control.h"
#include "fd/life.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "weft/env.h"

__attribute__((constructor)) static void start(void)
{
	sys_start();                            /* every hook works from here on */
	log_start(secure_getenv(WEFT_ENV_LOG)); /* refusals can be told */
	control_start();                        /* names can be asked */
	life_start();                           /* fork is seen */
}

/* Goodbye on every connection. We stay usable: other destructors may still read. Streams are not flushed here: fflush(NULL)
 * would wait for a thread that sits in a read from stdin. */
__attribute__((destructor)) static void end(void)
{
	life_exit();
}
