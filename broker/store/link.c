#include "store/link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ev.h>

#define LINK_READ_CHUNK 65536
#define LINK_READS 16 /* chunks read before other watchers get their turn */
#define LINK_CONNECT_S 5.0
#define LINK_RESOLVE_S 0.02
#define LINK_PENDING_MIN 64

enum link_state { LINK_IDLE, LINK_RESOLVING, LINK_CONNECTING, LINK_UP };

struct pending {
	link_reply *fn;
	void *arg;
};

struct link {
	struct ev_loop *loop;
	const struct store_target *target;
	const struct link_ops *ops;
	void *arg;
	enum link_state state;
	bool subscribed;
	int fd;
	int error;    /* of link_connect(), told from the timer */
	double since; /* of resolving or connecting */
	struct ev_io io;
	struct ev_timer timer; /* resolving, connecting, then silence */
	redisReader *reader;
	redisReplyObjectFunctions fn;
	void *(*make_array)(const redisReadTask *, int);
	struct gaicb *lookup;

	char *out;
	size_t out_len, out_done, out_size;

	struct pending *pending; /* ring */
	size_t head, count, size;
};

/* hiredis allocates what an array header announces: bound it first. */
static void *create_array(const redisReadTask *task, int elements)
{
	const struct link *l = task->privdata;

	if (elements < 0 || (unsigned)elements > LINK_ELEMENTS_MAX)
		return NULL;
	return l->make_array(task, elements);
}

static int reader_open(struct link *l)
{
	l->reader = redisReaderCreate();
	if (!l->reader)
		return -ENOMEM;
	l->fn = *l->reader->fn;
	l->make_array = l->fn.createArray;
	l->fn.createArray = create_array;
	l->reader->fn = &l->fn;
	redisReaderSetPrivdata(l->reader, l);
	return 0;
}

static void lookup_free(struct link *l)
{
	if (!l->lookup)
		return;
	/* A look-up that cannot be cancelled still writes into its block: leave that to it. */
	if (gai_cancel(l->lookup) != EAI_NOTCANCELED) {
		if (l->lookup->ar_result)
			freeaddrinfo(l->lookup->ar_result);
		free(l->lookup);
	}
	l->lookup = NULL;
}

void link_close(struct link *l)
{
	ev_io_stop(l->loop, &l->io);
	ev_timer_stop(l->loop, &l->timer);
	lookup_free(l);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->state = LINK_IDLE;
	l->subscribed = false;
	l->out_len = l->out_done = 0;
	if (l->reader)
		redisReaderFree(l->reader);
	l->reader = NULL;
	while (l->count) {
		struct pending p = l->pending[l->head];
		l->head = (l->head + 1) % l->size;
		l->count--;
		if (p.fn)
			p.fn(p.arg, NULL);
	}
}

static void link_fail(struct link *l, const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "%s", why);
	link_close(l);
	l->ops->down(l->arg, text);
}

static void watch(struct link *l, int events)
{
	if (ev_is_active(&l->io) && l->io.events == events)
		return;
	ev_io_stop(l->loop, &l->io);
	ev_io_set(&l->io, l->fd, events);
	ev_io_start(l->loop, &l->io);
}

static void set_timer(struct link *l, double after, double repeat)
{
	ev_timer_stop(l->loop, &l->timer);
	ev_timer_set(&l->timer, after, repeat);
	ev_timer_start(l->loop, &l->timer);
}

static int flush(struct link *l)
{
	while (l->out_done < l->out_len) {
		ssize_t n =
			send(l->fd, l->out + l->out_done, l->out_len - l->out_done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		l->out_done += (size_t)n;
	}
	if (l->out_done == l->out_len)
		l->out_done = l->out_len = 0;
	watch(l, l->out_len ? EV_READ | EV_WRITE : EV_READ);
	return 0;
}

static bool is_message(const struct link *l, const redisReply *r)
{
	return l->subscribed && r->type == REDIS_REPLY_ARRAY && r->elements == 3 &&
	       r->element[0]->type == REDIS_REPLY_STRING &&
	       strcmp(r->element[0]->str, "message") == 0;
}

static void deliver(struct link *l, redisReply *r)
{
	if (is_message(l, r)) {
		l->ops->push(l->arg, r);
	} else if (l->count) {
		struct pending p = l->pending[l->head];
		l->head = (l->head + 1) % l->size;
		l->count--;
		if (p.fn)
			p.fn(p.arg, r);
	}
	freeReplyObject(r);
}

/* Delivers whole replies. A callback may close the link: reader is NULL then. */
static int parse(struct link *l)
{
	while (l->state == LINK_UP) {
		void *reply = NULL;
		if (redisReaderGetReply(l->reader, &reply) != REDIS_OK)
			return -EPROTO;
		if (!reply)
			return l->reader->len > LINK_REPLY_MAX ? -EMSGSIZE : 0;
		deliver(l, reply);
	}
	return 0;
}

static void on_readable(struct link *l)
{
	static char chunk[LINK_READ_CHUNK]; /* one thread, not re-entered: parse() reads nothing */

	for (int i = 0; i < LINK_READS && l->state == LINK_UP; i++) {
		ssize_t n = recv(l->fd, chunk, sizeof(chunk), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			link_fail(l, n ? strerror(errno) : "closed by Redis");
			return;
		}
		ev_timer_again(l->loop, &l->timer);
		int r = redisReaderFeed(l->reader, chunk, (size_t)n) == REDIS_OK ? parse(l)
										 : -ENOMEM;
		if (r < 0) {
			link_fail(l, r == -EMSGSIZE ? "reply is too long"
						    : "reply is not well-formed");
			return;
		}
		if ((size_t)n < sizeof(chunk))
			return;
	}
}

static void on_connected(struct link *l)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (!error && reader_open(l) < 0)
		error = ENOMEM;
	if (error) {
		link_fail(l, strerror(error));
		return;
	}
	l->state = LINK_UP;
	watch(l, EV_READ);
	set_timer(l, LINK_SILENCE_S, LINK_SILENCE_S);
	l->ops->up(l->arg);
}

static void on_io(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct link *l = io->data;

	(void)loop;
	if (l->state == LINK_CONNECTING) {
		on_connected(l);
		return;
	}
	if (events & EV_WRITE) {
		int r = flush(l);
		if (r < 0) {
			link_fail(l, strerror(-r));
			return;
		}
	}
	if (events & EV_READ)
		on_readable(l);
}

static int start_connect(struct link *l, const struct sockaddr *sa, socklen_t len)
{
	int one = 1;

	l->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return -errno;
	if (sa->sa_family != AF_UNIX) {
		setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(l->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	}
	if (connect(l->fd, sa, len) < 0 && errno != EINPROGRESS)
		return -errno;
	l->state = LINK_CONNECTING;
	watch(l, EV_WRITE);
	set_timer(l, LINK_CONNECT_S, 0);
	return 0;
}

/* Names are looked up by glibc's own helper thread: getaddrinfo() would hold the heartbeat up. */
static int start_lookup(struct link *l)
{
	struct block {
		struct gaicb cb;
		struct addrinfo hints;
		char host[WEFT_HOST_MAX + 1];
		char port[8];
	} *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	memcpy(b->host, l->target->host, sizeof(b->host));
	snprintf(b->port, sizeof(b->port), "%u", l->target->port);
	b->hints.ai_socktype = SOCK_STREAM;
	b->cb.ar_name = b->host;
	b->cb.ar_service = b->port;
	b->cb.ar_request = &b->hints;
	l->lookup = &b->cb;
	if (getaddrinfo_a(GAI_NOWAIT, &l->lookup, 1, NULL) != 0) {
		l->lookup = NULL;
		free(b);
		return -EAGAIN;
	}
	l->state = LINK_RESOLVING;
	l->since = ev_now(l->loop);
	set_timer(l, LINK_RESOLVE_S, LINK_RESOLVE_S);
	return 0;
}

static void on_lookup(struct link *l)
{
	int r = gai_error(l->lookup);

	if (r == EAI_INPROGRESS && ev_now(l->loop) - l->since < LINK_CONNECT_S)
		return;
	if (r) {
		link_fail(l, r == EAI_INPROGRESS ? "name look-up timed out" : gai_strerror(r));
		return;
	}
	const struct addrinfo *ai = l->lookup->ar_result;
	r = start_connect(l, ai->ai_addr, ai->ai_addrlen);
	lookup_free(l);
	if (r < 0)
		link_fail(l, strerror(-r));
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
	struct link *l = timer->data;

	(void)loop;
	(void)events;
	switch (l->state) {
	case LINK_IDLE:
		link_fail(l, strerror(l->error));
		break;
	case LINK_RESOLVING:
		on_lookup(l);
		break;
	case LINK_CONNECTING:
		link_fail(l, "connect timed out");
		break;
	case LINK_UP:
		if (l->count)
			link_fail(l, "Redis does not answer");
		break;
	}
}

static int connect_target(struct link *l)
{
	const struct store_target *t = l->target;
	struct sockaddr_storage sa = { 0 };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct weft_addr a;

	if (t->path[0]) {
		memcpy(un.sun_path, t->path, sizeof(un.sun_path));
		return start_connect(l, (const struct sockaddr *)&un, sizeof(un));
	}
	if (addr_parse(&a, t->host) < 0)
		return start_lookup(l);
	a.port = t->port;
	int n = addr_to_sockaddr(&a, addr_is_v4(&a) ? AF_INET : AF_INET6, &sa);
	return n < 0 ? n : start_connect(l, (const struct sockaddr *)&sa, (socklen_t)n);
}

void link_connect(struct link *l)
{
	link_close(l);
	int r = connect_target(l);
	if (r == 0)
		return;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->error = -r;
	set_timer(l, 0, 0);
}

struct link *link_new(struct ev_loop *loop, const struct store_target *target,
		      const struct link_ops *ops, void *arg)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->loop = loop;
	l->target = target;
	l->ops = ops;
	l->arg = arg;
	l->fd = -1;
	ev_init(&l->io, on_io);
	ev_init(&l->timer, on_timer);
	l->io.data = l->timer.data = l;
	return l;
}

void link_free(struct link *l)
{
	if (!l)
		return;
	link_close(l);
	free(l->out);
	free(l->pending);
	free(l);
}

bool link_is_up(const struct link *l)
{
	return l->state == LINK_UP;
}

size_t link_pending(const struct link *l)
{
	return l->count;
}

int link_local(const struct link *l, struct weft_addr *out)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	if (l->state != LINK_UP || getsockname(l->fd, (struct sockaddr *)&sa, &len) < 0)
		return -ENOTCONN;
	return addr_from_sockaddr(out, (struct sockaddr *)&sa, len) < 0 ? -ENOTCONN : 0;
}

void link_subscribed(struct link *l)
{
	l->subscribed = true;
}

static int grow_pending(struct link *l)
{
	size_t size = l->size ? l->size * 2 : LINK_PENDING_MIN;

	if (l->count < l->size)
		return 0;
	struct pending *p = calloc(size, sizeof(*p));
	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < l->count; i++)
		p[i] = l->pending[(l->head + i) % l->size];
	free(l->pending);
	l->pending = p;
	l->size = size;
	l->head = 0;
	return 0;
}

static int grow_out(struct link *l, size_t more)
{
	size_t need = l->out_len + more, size = l->out_size ? l->out_size : 4096;

	if (need > LINK_OUT_MAX)
		return -ENOBUFS;
	while (size < need)
		size *= 2;
	if (size == l->out_size)
		return 0;
	char *out = realloc(l->out, size);
	if (!out)
		return -ENOMEM;
	l->out = out;
	l->out_size = size;
	return 0;
}

/* The bytes leave from the loop, not here: many commands of one turn go out in one send(). */
int link_command(struct link *l, link_reply *fn, void *arg, int argc, const char **argv,
		 const size_t *len)
{
	char *text = NULL;

	if (l->state != LINK_UP)
		return -ENOTCONN;
	int n = redisFormatCommandArgv(&text, argc, argv, len);
	if (n < 0)
		return -ENOMEM;
	int r = grow_out(l, (size_t)n);
	if (r == 0)
		r = grow_pending(l);
	if (r == 0) {
		memcpy(l->out + l->out_len, text, (size_t)n);
		l->out_len += (size_t)n;
		l->pending[(l->head + l->count++) % l->size] = (struct pending){ fn, arg };
		watch(l, EV_READ | EV_WRITE);
	}
	redisFreeCommand(text);
	return r;
}
