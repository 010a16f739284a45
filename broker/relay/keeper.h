/* weftd's side of the relays: one process per uid, started when a guest asks for it, that carries the sessions whose
 * descriptors left the sight of the shim (include/weft/relay.h).
 *
 * A relay runs as its uid, outlives weftd, and ends by itself when it has carried nothing for a while; whether one is there
 * is asked of its socket alone, so that a restarted weftd knows as much as the former. Nothing here blocks. */
#ifndef RELAY_KEEPER_H
#define RELAY_KEEPER_H

#include <sys/types.h>

struct ev_loop;
struct keeper;

struct keeper_options {
	const char *socket;  /* of weftd: the relays' lie beside it */
	const char *library; /* libweft.so, or NULL: where library_find() sees it */
};

int keeper_open(struct ev_loop *loop, const struct keeper_options *o, struct keeper **out);
/* 0: the relay of `uid` can be connected to; *pid is its pid, 0 if an earlier weftd started it. -EPERM: this weftd may not
 * become that uid; another -errno; *why for the operator. */
int keeper_ensure(struct keeper *k, uid_t uid, gid_t gid, pid_t *pid, const char **why);
/* NULL-safe. The relays take nothing new and end with the last session that they carry. */
void keeper_close(struct keeper *k);

#endif
