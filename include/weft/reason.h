/* Reason codes: one list for log lines, metrics and the admin page. Pure; implemented in preload/base/reason.c. */
#ifndef WEFT_REASON_H
#define WEFT_REASON_H

enum weft_reason {
#define REASON(name, err, http, flag, text) WEFT_REASON_##name,
#include "weft/reason.def"
#undef REASON
	WEFT_REASON_MAX
};

/* Unknown codes answer as NONE does. The strings are static. */
const char *reason_name(enum weft_reason r);
const char *reason_text(enum weft_reason r);
int reason_errno(enum weft_reason r); /* positive errno that the application sees */

#endif
