/* What is mesh and what is not: answered from mapped memory. */
#include <errno.h>
#include <string.h>

#include "control/internal.h"
#include "telemetry/seen.h"

static _Atomic int64_t map_at_ms;

static bool is_written(const struct weft_names_mem *mem)
{
	return mem && atomic_load_explicit(&mem->seq, memory_order_acquire) != 0;
}

/* By path; where that is not allowed, from the descriptors that HELLO brings. */
static void map(void)
{
	if (board_map_by_path() == -EACCES)
		attach(false);
}

/* The names, mapped now if need be. NULL: nobody has written any, also after waiting if that was allowed. */
static const struct weft_names_mem *names_get(bool may_wait)
{
	struct patience p;

	if (is_written(board_names())) {
		/* A weftd that lost its files has written others. */
		if (!board_is_fresh() && is_due(&map_at_ms, RETRY_MS))
			map();
		return board_names();
	}
	patience_begin(&p, may_wait);
	do
		if (p.until_ms || is_due(&map_at_ms, RETRY_MS))
			map();
	while (!is_written(board_names()) && patience_lasts(&p));
	return is_written(board_names()) ? board_names() : NULL;
}

bool mesh_present(void)
{
	KEEP_ERRNO;

	if (control_env.ceiling == WEFT_MODE_OFF)
		return false;
	return names_get(false) ? control_mode() != WEFT_MODE_OFF
				: control_env.claims && !control_env.open;
}

int mesh_find_name(const char *name, struct weft_names_service *out)
{
	KEEP_ERRNO;
	const struct weft_names_mem *mem;
	const struct attachment *a;

	if (control_env.ceiling == WEFT_MODE_OFF)
		return -ENOENT;
	mem = names_get(control_env.claims);
	if (!mem)
		return -ENOENT;
	a = attachment_get();
	return names_find(mem, sizeof(*mem), name, a ? a->ns : control_env.ns, out) ? -ENOENT : 0;
}

int mesh_find_addr(const struct weft_addr *a, struct weft_names_service *out,
		   enum weft_names_kind *kind, enum weft_reason *reason)
{
	KEEP_ERRNO;
	bool vip = addr_is_vip(a);
	const struct weft_names_mem *mem;

	if (control_env.ceiling == WEFT_MODE_OFF)
		return -ENOENT;
	mem = names_get(vip || control_env.claims);
	if (mem && names_find_addr(mem, sizeof(*mem), a, netns_get(), out, kind) == 0)
		return 0;
	if (!vip || (!mem && control_env.open))
		return -ENOENT;
	*reason = mem ? WEFT_REASON_UNKNOWN_VIP : WEFT_REASON_NO_BROKER;
	return -ECONNREFUSED;
}

void mesh_passes(const struct weft_addr *to, bool stream)
{
	KEEP_ERRNO;

	if (control_env.ceiling == WEFT_MODE_OFF)
		return;
	seen(stream ? WEFT_TALLY_PLAIN : WEFT_TALLY_UDP, to, WEFT_REASON_NONE);
	if (control_env.claims && !attachment_get())
		attach(false);
}
