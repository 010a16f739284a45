#include "relay/relay.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/internal.h"
#include "telemetry/log.h"
#include "weft/relay.h"

#define GUESTS_MAX 1024
#define ACCEPTS 64 /* of one turn */
#define PAUSE_S 0.1
#define TICK_S 2.0
#define IDLE_S 30.0 /* then it ends; weftd starts another when it is needed */

/* A hand-over: connected, its message not yet there. */
struct guest {
	struct relay *relay;
	struct guest *next, **at;
	int fd;
	struct ev_io io;
	struct ev_timer deadline;
};

static void guest_free(struct guest *g)
{
	struct relay *r = g->relay;

	ev_io_stop(r->loop, &g->io);
	ev_timer_stop(r->loop, &g->deadline);
	close(g->fd);
	*g->at = g->next;
	if (g->next)
		g->next->at = g->at;
	r->n_guests--;
	free(g);
	relay_settle(r);
}

/* Descriptors of a message. How many; what is more than `max` is closed. */
static int take_fds(struct msghdr *m, int *fds, int max)
{
	int n = 0, fd;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + CMSG_LEN(0) < c->cmsg_len; at += sizeof(int)) {
			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			if (n < max)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

/* Two descriptors came if our shim took the session out of the message, three if it is not one that it understands. */
static int check(const struct weft_relay_ask *ask, ssize_t n, const int *fds, int n_fds)
{
	socklen_t len = sizeof(int);
	int domain = 0;
	char byte;

	if (n != sizeof(*ask) || ask->magic != WEFT_RELAY_MAGIC)
		return EPROTO;
	if (ask->version > WEFT_RELAY_VERSION)
		return ESTALE;
	if (ask->version < WEFT_RELAY_VERSION || n_fds != WEFT_RELAY_SENT - 1)
		return EPROTO;
	if (recv(fds[0], &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno != EAGAIN)
		return errno; /* a session that cannot go on here, or has ended */
	if (getsockopt(fds[1], SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
		return EPROTO;
	return 0;
}

/* The answer goes out first: a guest that does not wait for it any more keeps its connection. */
static int begin(struct guest *g, const int *fds)
{
	const uint8_t taken = WEFT_RELAY_TAKEN;

	if (send(g->fd, &taken, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		return -errno;
	return link_start(g->relay, fds[0], fds[1]);
}

static void retire(struct relay *r);

static void on_message(struct ev_loop *loop, struct ev_io *io, int events)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct guest *g = io->data;
	struct weft_relay_ask ask = { 0 };
	struct iovec iov = { &ask, sizeof(ask) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	int fds[4], n_fds, err;
	ssize_t n = recvmsg(g->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	g->relay->last = ev_now(loop);
	n_fds = n < 0 ? 0 : take_fds(&m, fds, 4);
	err = n > 0 ? check(&ask, n, fds, n_fds) : 0; /* 0: weftd looked whether we are here */
	if (n > 0 && !err && begin(g, fds) == 0) {
		n_fds = 0;
	} else if (err) {
		uint8_t answer = (uint8_t)err;

		if (log_allowed(&g->relay->refusals, 5))
			log_warn("relay: a hand-over could not be taken: %s", strerror(err));
		if (err == ESTALE)
			retire(g->relay);
		send(g->fd, &answer, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	while (n_fds > 0)
		close(fds[--n_fds]);
	guest_free(g);
}

static void on_deadline(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)loop;
	(void)events;
	guest_free(t->data);
}

static bool may_ask(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static void admit(struct relay *r, int fd)
{
	struct guest *g = r->n_guests < GUESTS_MAX && may_ask(fd) ? calloc(1, sizeof(*g)) : NULL;

	if (!g) {
		close(fd);
		return;
	}
	g->relay = r;
	g->fd = fd;
	g->next = r->guests;
	g->at = &r->guests;
	if (g->next)
		g->next->at = &g->next;
	r->guests = g;
	r->n_guests++;
	r->last = ev_now(r->loop);
	ev_io_init(&g->io, on_message, fd, EV_READ);
	ev_timer_init(&g->deadline, on_deadline, WEFT_RELAY_WAIT_MS / 1000.0, 0);
	g->io.data = g->deadline.data = g;
	ev_io_start(r->loop, &g->io);
	ev_timer_start(r->loop, &g->deadline);
}

/* False: out of descriptors. */
static bool accept_all(struct relay *r, int max)
{
	for (int i = 0; i < max; i++) {
		int fd = accept4(RELAY_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			admit(r, fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			return errno == EAGAIN || errno == EINVAL;
	}
	return true;
}

static void on_accept(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct relay *r = io->data;

	(void)events;
	if (accept_all(r, ACCEPTS))
		return;
	ev_io_stop(loop, io);
	ev_timer_set(&r->pause, PAUSE_S, 0);
	ev_timer_start(loop, &r->pause);
}

static void on_pause(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct relay *r = t->data;

	(void)events;
	if (!r->retired)
		ev_io_start(loop, &r->accept);
}

/* From now on a connect is refused, and weftd starts another relay; who is connected already is served. */
static void retire(struct relay *r)
{
	if (r->retired)
		return;
	r->retired = true;
	ev_io_stop(r->loop, &r->accept);
	shutdown(RELAY_FD, SHUT_RDWR);
	accept_all(r, GUESTS_MAX);
	close(RELAY_FD);
	relay_settle(r);
}

void relay_settle(struct relay *r)
{
	if (r->retired && !r->links && !r->guests)
		ev_break(r->loop, EVBREAK_ALL);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct relay *r = t->data;

	(void)events;
	link_sweep(r);
	if (r->links || r->guests)
		r->last = ev_now(loop);
	else if (ev_now(loop) - r->last >= IDLE_S)
		retire(r);
}

static void on_term(struct ev_loop *loop, struct ev_signal *s, int events)
{
	(void)loop;
	(void)events;
	retire(s->data);
}

static bool is_listening(int fd)
{
	int yes = 0;
	socklen_t len = sizeof(yes);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

int relay_main(void)
{
	static struct relay r;

	/* What passes here in the clear is nobody's to look at, not even of this uid. */
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || !is_listening(RELAY_FD)) {
		log_error(RELAY_OPTION " is how weftd starts its relays; it is no command");
		return 2;
	}
	prctl(PR_SET_NAME, "weftd-relay");
	signal(SIGPIPE, SIG_IGN);
	r.loop = ev_loop_new(EVFLAG_AUTO);
	if (!r.loop || chdir("/") < 0) {
		log_error("relay: no event loop: %s", strerror(errno));
		return 1;
	}
	r.last = ev_now(r.loop);
	ev_io_init(&r.accept, on_accept, RELAY_FD, EV_READ);
	ev_timer_init(&r.tick, on_tick, TICK_S, TICK_S);
	ev_init(&r.pause, on_pause);
	ev_signal_init(&r.term, on_term, SIGTERM);
	r.accept.data = r.tick.data = r.pause.data = r.term.data = &r;
	ev_io_start(r.loop, &r.accept);
	ev_timer_start(r.loop, &r.tick);
	ev_signal_start(r.loop, &r.term);
	ev_run(r.loop, 0);
	ev_loop_destroy(r.loop);
	return 0;
}
