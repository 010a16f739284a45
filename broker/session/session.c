#include "session/session.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "session/internal.h"

#define BACKLOG 4096
#define ACCEPTS 64 /* of one turn */
#define PAUSE_S 0.1
#define RENEW_S 1.0

/* --- one client --- */

static void client_free(struct client *c)
{
	struct session *s = c->session;

	ev_io_stop(s->loop, &c->io);
	ev_timer_stop(s->loop, &c->deadline);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	s->n_clients--;
	close(c->fd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	if (c->close_fd >= 0)
		close(c->close_fd);
	free(c->body);
	free(c->out);
	free(c);
}

static void client_move(struct client *c, enum client_state state)
{
	static const int events[] = { EV_READ, EV_READ, 0, EV_WRITE, 0 };

	c->state = state;
	ev_io_stop(c->session->loop, &c->io);
	if (!events[state])
		return;
	ev_io_set(&c->io, c->fd, events[state]);
	ev_io_start(c->session->loop, &c->io);
}

/* The first byte takes the descriptors along. -EAGAIN, or bytes sent. */
static ssize_t send_some(struct client *c)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(c->fds))];
	} control = { 0 };
	struct iovec iov = { c->out + c->out_done, c->out_len - c->out_done };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (c->n_fds && !c->out_done) {
		size_t n = (size_t)c->n_fds * sizeof(int);
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(n);
		memcpy(CMSG_DATA(&control.head), c->fds, n);
	}
	ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

static void client_write(struct client *c)
{
	while (c->out_done < c->out_len) {
		ssize_t n = send_some(c);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return;
		if (n < 0)
			break; /* the guest went away */
		c->out_done += (size_t)n;
	}
	client_free(c);
}

static void keep_answer(struct client *c, uint8_t type, const uint8_t *body, size_t len)
{
	struct wire_frame f;

	wire_frame_make(&f, type, (uint32_t)len);
	c->out = malloc(sizeof(f) + len);
	if (!c->out)
		return;
	memcpy(c->out, &f, sizeof(f));
	if (len)
		memcpy(c->out + sizeof(f), body, len);
	c->out_len = sizeof(f) + len;
}

void client_answer_bytes(struct client *c, const uint8_t *body, size_t len)
{
	keep_answer(c, c->type | WIRE_ANSWER, body, len);
	client_move(c, CLIENT_ANSWER);
}

static void answer(struct client *c, uint8_t type, const struct wire_schema *schema,
		   const void *body)
{
	uint8_t *bytes = NULL;
	size_t len = 0;

	if (wire_encode(schema, body, WEFT_REPLY_MAX, &bytes, &len) == 0)
		keep_answer(c, type, bytes, len);
	free(bytes);
}

void client_answer(struct client *c, const struct wire_schema *schema, const void *body)
{
	answer(c, c->type | WIRE_ANSWER, schema, body);
	client_move(c, CLIENT_ANSWER);
}

void client_answer_later(struct client *c, const struct wire_schema *schema, const void *body)
{
	answer(c, c->type | WIRE_ANSWER, schema, body);
	client_move(c,
		    registry_is_settling(c->session->o.registry) ? CLIENT_WAITING : CLIENT_ANSWER);
}

void client_refuse(struct client *c, int code, const char *text)
{
	struct wire_refused r = { .code = (uint64_t)code, .text = wire_str_of(text) };
	struct session *s = c->session;

	if (code != ENOENT && log_allowed(&s->refusals, 10))
		log_warn("pid %d (uid %lu), message %u: refused: %s", (int)c->pid,
			 (unsigned long)c->uid, c->type, text);
	registry_count(s->o.registry, true);
	answer(c, WIRE_REFUSED, &wire_schema_refused, &r);
	client_move(c, CLIENT_ANSWER);
}

static void on_settled(void *arg)
{
	struct session *s = arg;

	for (struct client *c = s->clients; c; c = c->next)
		if (c->state == CLIENT_WAITING)
			client_move(c, CLIENT_ANSWER);
}

/* --- reading a request --- */

static void on_header(struct client *c)
{
	uint8_t type = 0;
	int e = wire_frame_parse(&c->header, WEFT_REQUEST_MAX, &type, &c->length);

	c->type = type;
	if (e == 0 && (type < WIRE_HELLO || type >= WIRE_TYPE_MAX))
		e = -EPROTO;
	if (e < 0) {
		c->type = 0;
		client_refuse(c, -e,
			      e == -EMSGSIZE ? "message is too long"
					     : "not a message of weft, or of another version");
		return;
	}
	c->have = 0;
	c->body = malloc(c->length + 1u);
	if (!c->body)
		client_refuse(c, ENOMEM, "out of memory");
	else
		client_move(c, CLIENT_BODY);
}

/* Steps until the socket is dry. The client is gone when this returns false. */
static bool client_read(struct client *c)
{
	while (c->state == CLIENT_HEADER || c->state == CLIENT_BODY) {
		bool header = c->state == CLIENT_HEADER;
		uint8_t *into = header ? (uint8_t *)&c->header : c->body;
		uint32_t want = header ? (uint32_t)sizeof(c->header) : c->length;
		ssize_t n = c->have < want
				    ? recv(c->fd, into + c->have, want - c->have, MSG_DONTWAIT)
				    : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n < 0 || (n == 0 && c->have < want)) {
			client_free(c);
			return false;
		}
		c->have += (uint32_t)n;
		if (c->have < want)
			continue;
		if (header) {
			on_header(c);
		} else {
			registry_count(c->session->o.registry, false);
			exchange_run(c);
		}
	}
	return true;
}

static void on_client(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct client *c = io->data;

	(void)loop;
	if ((events & EV_READ) && !client_read(c))
		return;
	/* Most answers fit into the socket at once. */
	if (c->state == CLIENT_ANSWER)
		client_write(c);
}

static void on_deadline(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct client *c = t->data;

	(void)loop;
	(void)events;
	if (log_allowed(&c->session->refusals, 10))
		log_warn("pid %d (uid %lu): exchange took too long", (int)c->pid,
			 (unsigned long)c->uid);
	client_free(c);
}

/* --- accepting --- */

static unsigned count_uid(const struct session *s, uid_t uid)
{
	unsigned n = 0;

	for (const struct client *c = s->clients; c; c = c->next)
		n += c->uid == uid;
	return n;
}

static struct client *client_new(struct session *s, int fd, const struct ucred *peer)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->session = s;
	c->fd = fd;
	c->close_fd = -1;
	c->pid = peer->pid;
	c->uid = peer->uid;
	c->gid = peer->gid;
	c->pidfd = proc_peer_pidfd(fd, peer->pid);
	c->next = s->clients;
	c->link = &s->clients;
	if (c->next)
		c->next->link = &c->next;
	s->clients = c;
	s->n_clients++;
	ev_init(&c->io, on_client);
	ev_timer_init(&c->deadline, on_deadline, CLIENT_DEADLINE_S, 0);
	c->io.data = c->deadline.data = c;
	ev_timer_start(s->loop, &c->deadline);
	client_move(c, CLIENT_HEADER);
	return c;
}

static void admit(struct session *s, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct client *c;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
		close(fd);
		return;
	}
	bool full = s->n_clients >= CLIENTS_MAX || count_uid(s, peer.uid) >= CLIENTS_UID_MAX;
	c = client_new(s, fd, &peer);
	if (!c)
		close(fd);
	else if (full)
		client_refuse(c, EAGAIN, "too many exchanges at once");
	else if (client_read(c) && c->state == CLIENT_ANSWER)
		client_write(c);
}

static void on_accept(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct session *s = io->data;

	(void)events;
	for (int i = 0; i < ACCEPTS; i++) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			admit(s, fd);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN) { /* EMFILE: the backlog would keep the loop busy */
			log_error("accept: %s", strerror(errno));
			ev_io_stop(loop, io);
			ev_timer_set(&s->pause, PAUSE_S, 0);
			ev_timer_start(loop, &s->pause);
		}
		return;
	}
}

static void on_pause(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct session *s = t->data;

	(void)events;
	ev_io_start(loop, &s->accept);
}

static void on_renew(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)loop;
	(void)events;
	enrol_renew(t->data);
}

/* --- the socket --- */

static int is_answered(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 || errno == EAGAIN;
	close(fd);
	return r;
}

/* Bound under another name and renamed, so that nobody meets it half made. */
static int bind_socket(struct session *s)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX }, tmp = un;

	if (snprintf(tmp.sun_path, sizeof(tmp.sun_path), "%s.new", s->path) >=
		    (int)sizeof(tmp.sun_path) ||
	    snprintf(un.sun_path, sizeof(un.sun_path), "%s", s->path) >= (int)sizeof(un.sun_path))
		return -ENAMETOOLONG;
	int r = is_answered(&un);
	if (r)
		return r < 0 ? r : -EADDRINUSE;
	unlink(tmp.sun_path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || bind(s->fd, (const struct sockaddr *)&tmp, sizeof(tmp)) < 0 ||
	    chmod(tmp.sun_path, s->o.mode) < 0 || listen(s->fd, BACKLOG) < 0 ||
	    rename(tmp.sun_path, un.sun_path) < 0)
		return -errno;
	return 0;
}

int session_open(struct ev_loop *loop, const struct session_options *o, struct session **out)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->o = *o;
	s->fd = -1;
	ev_init(&s->accept, on_accept);
	ev_init(&s->pause, on_pause);
	ev_timer_init(&s->renew, on_renew, RENEW_S, RENEW_S);
	s->accept.data = s->pause.data = s->renew.data = s;
	s->path = strdup(o->path);
	int e = s->path ? bind_socket(s) : -ENOMEM;
	if (e < 0) {
		free(s->path); /* not ours to remove */
		s->path = NULL;
		session_close(s);
		return e;
	}
	*out = s;
	return 0;
}

void session_start(struct session *s)
{
	registry_on_settled(s->o.registry, on_settled, s);
	ev_io_set(&s->accept, s->fd, EV_READ);
	ev_io_start(s->loop, &s->accept);
	ev_timer_start(s->loop, &s->renew);
}

void session_close(struct session *s)
{
	if (!s)
		return;
	registry_on_settled(s->o.registry, NULL, NULL);
	ev_io_stop(s->loop, &s->accept);
	ev_timer_stop(s->loop, &s->pause);
	ev_timer_stop(s->loop, &s->renew);
	while (s->clients)
		client_free(s->clients);
	if (s->path)
		unlink(s->path);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s);
}
