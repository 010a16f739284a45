/* Of session/ alone. */
#ifndef SESSION_INTERNAL_H
#define SESSION_INTERNAL_H

#include <stdbool.h>

#include <ev.h>

#include "health/proc.h"
#include "registry/process.h"
#include "registry/registry.h"
#include "session/session.h"
#include "telemetry/log.h"
#include "weft/wire.h"

#define CLIENTS_MAX 8192
#define CLIENTS_UID_MAX 2048 /* of one uid */
#define CLIENT_DEADLINE_S 5.0

enum client_state { /* only client_move() assigns; in this order */
		    CLIENT_HEADER,
		    CLIENT_BODY,
		    CLIENT_WAITING, /* answer is known, addresses are still being asked for */
		    CLIENT_ANSWER,
		    CLIENT_DONE,
};

struct client {
	struct session *session;
	struct client *next, **link; /* of session->clients */
	enum client_state state;
	int fd, pidfd;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	struct ev_io io;
	struct ev_timer deadline;
	struct wire_frame header;
	uint8_t type;
	uint8_t *body;
	uint32_t have, length; /* of header, then of body */
	uint8_t *out;          /* frame header and body */
	size_t out_len, out_done;
	int fds[4]; /* go with the first byte of the answer */
	int n_fds;
	int close_fd; /* one of them that is ours, or -1 */
};

struct session {
	struct ev_loop *loop;
	struct session_options o;
	char *path;
	int fd;
	struct ev_io accept;
	struct ev_timer pause; /* out of descriptors: accept again later */
	struct ev_timer renew;
	struct client *clients;
	unsigned n_clients;
	struct log_limit refusals, reports;
};

/* session.c: ends of an exchange. Each takes the client to its answer. */
void client_answer(struct client *c, const struct wire_schema *schema, const void *body);
void client_answer_bytes(struct client *c, const uint8_t *body, size_t len);
void client_refuse(struct client *c, int code, const char *text); /* code: positive errno */
/* Answers once no virtual address is being asked for. */
void client_answer_later(struct client *c, const struct wire_schema *schema, const void *body);

/* exchange.c: a whole request is there */
void exchange_run(struct client *c);

/* attest.c: what a peer may be */
struct attestation {
	struct grant grant; /* points into the rest */
	char service[WEFT_SERVICE_MAX + 1];
	char ns[WEFT_LABEL_MAX + 1];
	char account[WEFT_LABEL_MAX + 1];
	char version[WEFT_LABEL_MAX + 1];
	char why[160];
	char text[2 * WEFT_SPEC_MAX]; /* of labels */
	char selectors[4][96];
	struct wire_label labels[WEFT_LABELS_MAX];
	uint16_t ports[WEFT_PORTS_MAX];
};
/* Always fills a->grant; a refusal is an empty service with `why`. Reads the user data base, and for sha256 selectors
 * the program. */
void attest(struct attestation *a, struct registry *r, const struct proc_facts *f,
	    const struct wire_hello *hello);
/* Facts as selectors: "unix:uid:1000"... */
void attest_selectors(const struct proc_facts *f, char out[static 4][96]);

/* enrol.c: the messages between attestation and signing */
/* 0; -EACCES or another -errno with *why. */
int enrol_sign(struct session *s, struct process *p, const struct proc_facts *f,
	       const struct wire_bin *csr, char *why, size_t size);
void enrol_renew(struct session *s); /* certificates past their half life */

#endif
