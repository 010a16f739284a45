#include "weft/reason.h"

#include <errno.h>

static const struct {
	const char *name, *text;
	int err;
} reasons[WEFT_REASON_MAX] = {
#define REASON(id, err_, http, flag, text_) \
	[WEFT_REASON_##id] = { .name = #id, .text = text_, .err = err_ },
#include "weft/reason.def"
#undef REASON
};

static unsigned known(enum weft_reason r)
{
	return (unsigned)r < WEFT_REASON_MAX ? (unsigned)r : WEFT_REASON_NONE;
}

const char *reason_name(enum weft_reason r)
{
	return reasons[known(r)].name;
}

const char *reason_text(enum weft_reason r)
{
	return reasons[known(r)].text;
}

int reason_errno(enum weft_reason r)
{
	return reasons[known(r)].err;
}
