/* What libwefttrace.so counts and `weft try` reads: results of socket calls as the program sees them. One file, mapped by
 * every process of a run. A guest may write anything there: the reader checks, and nothing in it is an offset. */
#ifndef WEFT_TRACE_H
#define WEFT_TRACE_H

#include <stdatomic.h>
#include <stdint.h>

#define WEFT_ENV_TRACE "WEFT_TRY_TRACE" /* path of the file; internal */
#define WEFT_TRACE_NAME "libwefttrace.so"
#define WEFT_TRACE_MAGIC UINT64_C(0x7765667474726163) /* "wefttrac" */

#define WEFT_TRACE_CONNS 65536u /* a power of two; later connections are counted in `lost` alone */
#define WEFT_TRACE_ERRNOS 136

enum weft_trace_call {
#define CALL(name) WEFT_TRACE_##name,
#include "weft/trace.def"
#undef CALL
	WEFT_TRACE_CALLS
};

enum weft_trace_flag {
	WEFT_TRACE_CLIENT = 1,
	WEFT_TRACE_SERVER = 2,
	WEFT_TRACE_EOF = 4,
	WEFT_TRACE_RESET = 8,
	WEFT_TRACE_TLS = 16, /* the kernel received more than the program: a handshake */
};

struct weft_trace_conn { /* one TCP connection's end, found by socket cookie: dup, fork and exec change nothing */
	_Atomic uint64_t cookie; /* 0: free */
	_Atomic uint64_t in, out;
	_Atomic uint32_t flags;
	uint32_t reserved;
};

struct weft_trace {
	uint64_t magic;
	uint64_t size;
	_Atomic uint64_t lost;
	_Atomic uint64_t calls[WEFT_TRACE_CALLS][WEFT_TRACE_ERRNOS]; /* [0]: successes */
	struct weft_trace_conn conns[WEFT_TRACE_CONNS];
};

#endif
