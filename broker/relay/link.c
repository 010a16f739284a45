#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/internal.h"
#include "weft/limits.h"

/* What is read in one go, and so the most that waits for a side that does not take it: small, for it is lost to others that
 * still hold the session. */
#define LINK_BLOCK WEFT_RECORD_MAX
#define LINK_LOCAL_BUFFER (4 * LINK_BLOCK)

/* One direction. */
struct flow {
	struct link *link;
	int from, to;
	struct ev_io readable, writable; /* one of them is on, until the flow has ended */
	uint8_t *rest;                   /* what `to` did not take; NULL: nothing */
	size_t off, len;
	bool eof;   /* `from` has ended; what is in `rest` still goes out */
	bool ended; /* and `to` was told */
	bool sink;  /* the guest does not want to read: thrown away, as TCP does */
};

struct link {
	struct relay *relay;
	struct link *next, **at;
	int wire, local;
	struct flow in, out; /* wire to local, local to wire */
};

/* MSG_DONTWAIT everywhere: O_NONBLOCK would be the other holders' too. */

static void link_end(struct link *l)
{
	struct relay *r = l->relay;

	ev_io_stop(r->loop, &l->in.readable);
	ev_io_stop(r->loop, &l->in.writable);
	ev_io_stop(r->loop, &l->out.readable);
	ev_io_stop(r->loop, &l->out.writable);
	free(l->in.rest);
	free(l->out.rest);
	close(l->local);
	close(l->wire);
	*l->at = l->next;
	if (l->next)
		l->next->at = l->at;
	r->n_links--;
	free(l);
	relay_settle(r);
}

/* The guest is gone with bytes on their way to it: TCP answers that with a reset. */
static void link_reset(struct link *l)
{
	const struct linger now = { .l_onoff = 1 };

	setsockopt(l->wire, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	link_end(l);
}

static bool is_hung_up(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR);
}

/* False: the link is gone. */
static bool flow_end(struct flow *f)
{
	struct link *l = f->link;

	ev_io_stop(l->relay->loop, &f->readable);
	ev_io_stop(l->relay->loop, &f->writable);
	f->ended = true;
	if ((l->in.ended && l->out.ended) || (f == &l->out && is_hung_up(l->local))) {
		link_end(l);
		return false;
	}
	shutdown(f->to, SHUT_WR);
	return true;
}

/* `to` does not take any more. Errors of the network end both sides; what the guest has not been told is lost, and where it
 * was sending it gets ECONNRESET from the bytes that nobody read. */
static bool flow_broken(struct flow *f)
{
	struct link *l = f->link;

	if (f == &l->out) {
		link_end(l);
		return false;
	}
	if (is_hung_up(l->local)) {
		link_reset(l);
		return false;
	}
	f->sink = true; /* shutdown(SHUT_RD) */
	return true;
}

/* Bytes taken, or -errno. */
static ssize_t flow_put(struct flow *f, const uint8_t *p, size_t n)
{
	ssize_t r;

	if (f->sink)
		return (ssize_t)n;
	do
		r = send(f->to, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN ? 0 : -errno;
	return r;
}

static bool flow_keep(struct flow *f, const uint8_t *p, size_t n)
{
	f->rest = malloc(n);
	if (!f->rest) {
		link_reset(f->link);
		return false;
	}
	memcpy(f->rest, p, n);
	f->off = 0;
	f->len = n;
	ev_io_stop(f->link->relay->loop, &f->readable);
	ev_io_start(f->link->relay->loop, &f->writable);
	return true;
}

static void on_writable(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct flow *f = io->data;
	ssize_t n = flow_put(f, f->rest + f->off, f->len - f->off);

	(void)events;
	if (n < 0 && !flow_broken(f))
		return;
	if (n > 0)
		f->off += (size_t)n;
	if (f->off < f->len && !f->sink)
		return;
	free(f->rest);
	f->rest = NULL;
	ev_io_stop(loop, &f->writable);
	if (f->eof)
		flow_end(f);
	else
		ev_io_start(loop, &f->readable);
}

static void on_readable(struct ev_loop *loop, struct ev_io *io, int events)
{
	static uint8_t block[LINK_BLOCK];
	struct flow *f = io->data;
	ssize_t n = recv(f->from, block, sizeof(block), MSG_DONTWAIT), done;

	(void)loop;
	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		if (f == &f->link->out)
			link_reset(f->link); /* the guest closed without having read all */
		else
			link_end(f->link);
		return;
	}
	f->link->relay->last = ev_now(loop);
	if (n == 0) {
		f->eof = true;
		flow_end(f);
		return;
	}
	done = flow_put(f, block, (size_t)n);
	if (done < 0) {
		flow_broken(f);
		return;
	}
	if (done < n)
		flow_keep(f, block + done, (size_t)(n - done));
}

static void flow_start(struct flow *f, struct link *l, int from, int to)
{
	f->link = l;
	f->from = from;
	f->to = to;
	ev_io_init(&f->readable, on_readable, from, EV_READ);
	ev_io_init(&f->writable, on_writable, to, EV_WRITE);
	f->readable.data = f->writable.data = f;
	ev_io_start(l->relay->loop, &f->readable);
}

int link_start(struct relay *r, int wire, int local)
{
	struct link *l = calloc(1, sizeof(*l));
	int size = LINK_LOCAL_BUFFER;

	if (!l)
		return -ENOMEM;
	setsockopt(local, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	l->relay = r;
	l->wire = wire;
	l->local = local;
	l->next = r->links;
	l->at = &r->links;
	if (l->next)
		l->next->at = &l->next;
	r->links = l;
	r->n_links++;
	flow_start(&l->in, l, wire, local);
	flow_start(&l->out, l, local, wire);
	return 0;
}

void link_sweep(struct relay *r)
{
	struct link *l, *next;

	for (l = r->links; l; l = next) {
		next = l->next;
		if (l->out.ended && !l->out.rest && is_hung_up(l->local))
			link_end(l);
	}
}
