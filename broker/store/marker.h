/* weft:mesh, the marker that says whose data a Redis holds: mesh id and a revision counter that only grows.
 * In Redis it is a hash with the fields id and revision, so that two brokers can count at once; in the file that keeps
 * the one seen last, and in weft:accept, it is JSON. Pure but for the two file functions. */
#ifndef STORE_MARKER_H
#define STORE_MARKER_H

#include <stddef.h>
#include <stdint.h>

#define MARKER_ID_MAX 63

struct marker {
	char id[MARKER_ID_MAX + 1]; /* "": none */
	uint64_t revision;
};

enum marker_verdict { MARKER_OURS, MARKER_NEW, MARKER_HELD };

/* `known`: what this weftd saw last; `seen`: what Redis holds now. NEW: neither has one, create it.
 * HELD: the data is not ours, *why (static text) says in what way. */
enum marker_verdict marker_judge(const struct marker *known, const struct marker *seen,
				 const char **why);

int marker_parse(struct marker *m, const char *json, size_t len);  /* 0 or -EINVAL */
int marker_format(const struct marker *m, char *out, size_t size); /* bytes or -ENAMETOOLONG */

/* The marker seen last, in a file. A missing file reads as none. 0 or -errno. */
int marker_load(struct marker *m, const char *path);
int marker_save(const struct marker *m, const char *path);

#endif
