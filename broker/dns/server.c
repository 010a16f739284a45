#include "dns/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ev.h>

#include "dns/message.h"
#include "registry/registry.h"
#include "weft/env.h"
#include "weft/ident.h"

#define DATAGRAMS 64 /* of one turn of the loop */
#define CLIENTS_MAX 64
#define IDLE_S 5.0
#define LENGTH 2 /* bytes in front of a message over TCP */

struct client {
	struct dns *dns;
	struct client *next, **link;
	ev_io io;
	ev_timer idle;
	size_t have;
	uint8_t in[LENGTH + DNS_QUERY_MAX];
};

struct dns {
	struct ev_loop *loop;
	struct registry *registry;
	struct dns_source source;
	ev_io udp, tcp;
	struct client *clients;
	size_t n_clients;
};

/* --- what the registry knows --- */

static int by_name(void *arg, const char *name, struct weft_names_service *out)
{
	const struct wire_resolve ask = { .name = wire_str_of(name) };
	enum weft_names_kind kind;

	return registry_resolve(arg, NULL, 0, &ask, out, &kind) < 0 ? -ENOENT : 0;
}

/* The full form of the name: "orders.default" becomes "orders.default.svc.<trust domain>", a ServiceEntry's host stays. */
static int by_vip(void *arg, const struct weft_addr *vip, char name[static WEFT_HOST_MAX + 1])
{
	const struct wire_resolve ask = { .address = { vip->ip, sizeof(vip->ip) } };
	const char *td = registry_trust_domain(arg);
	char canonical[WEFT_SERVICE_MAX + 1];
	struct weft_names_service svc;
	enum weft_names_kind kind;
	size_t n;

	if (registry_resolve(arg, NULL, 0, &ask, &svc, &kind) < 0 || kind != WEFT_NAMES_VIP)
		return -ENOENT;
	n = (size_t)snprintf(name, WEFT_HOST_MAX + 1, "%s.svc.%s", svc.name, td);
	if (n <= WEFT_HOST_MAX && name_canonical(canonical, name, "", td) == 0 &&
	    strcmp(canonical, svc.name) == 0)
		return 0;
	n = strlen(svc.name);
	if (n > WEFT_HOST_MAX)
		return -ENOENT;
	memcpy(name, svc.name, n + 1);
	return 0;
}

/* --- UDP --- */

static void on_datagram(struct ev_loop *loop, struct ev_io *io, int events)
{
	const struct dns *d = io->data;
	uint8_t in[DNS_QUERY_MAX], out[DNS_ANSWER_MAX];
	struct sockaddr_storage from;

	(void)loop;
	(void)events;
	for (int i = 0; i < DATAGRAMS; i++) {
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(io->fd, in, sizeof(in), 0, (struct sockaddr *)&from, &len);
		size_t answer = n < 0 ? 0 : dns_answer(in, (size_t)n, &d->source, true, out);

		if (n < 0)
			return;
		if (answer) /* a full queue loses it, as UDP may */
			(void)sendto(io->fd, out, answer, 0, (struct sockaddr *)&from, len);
	}
}

/* --- TCP --- */

static void client_free(struct client *c)
{
	ev_io_stop(c->dns->loop, &c->io);
	ev_timer_stop(c->dns->loop, &c->idle);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->dns->n_clients--;
	close(c->io.fd);
	free(c);
}

/* One message, if all of it is there. 1: answered; 0: more is needed; -EPROTO: the client is given up. */
static int client_answer(struct client *c)
{
	size_t n = c->have < LENGTH ? 0 : (size_t)c->in[0] << 8 | c->in[1], len;
	uint8_t out[LENGTH + DNS_ANSWER_MAX];

	if (n > DNS_QUERY_MAX)
		return -EPROTO;
	if (c->have < LENGTH || c->have < LENGTH + n)
		return 0;
	len = dns_answer(c->in + LENGTH, n, &c->dns->source, false, out + LENGTH);
	out[0] = (uint8_t)(len >> 8);
	out[1] = (uint8_t)len;
	/* An answer fits any send buffer; who does not read the earlier ones gets no more. */
	if (!len || send(c->io.fd, out, LENGTH + len, MSG_NOSIGNAL) != (ssize_t)(LENGTH + len))
		return -EPROTO;
	c->have -= LENGTH + n;
	memmove(c->in, c->in + LENGTH + n, c->have);
	return 1;
}

static void on_client(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct client *c = io->data;
	ssize_t n = recv(io->fd, c->in + c->have, sizeof(c->in) - c->have, 0);
	int r;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	c->have += n > 0 ? (size_t)n : 0;
	do
		r = n <= 0 ? -EPROTO : client_answer(c);
	while (r > 0);
	if (r < 0)
		client_free(c);
	else
		ev_timer_again(loop, &c->idle);
}

static void on_idle(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)loop;
	(void)events;
	client_free(t->data);
}

static void on_connection(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct dns *d = io->data;
	int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c = fd < 0 || d->n_clients == CLIENTS_MAX ? NULL : calloc(1, sizeof(*c));

	(void)events;
	if (!c) {
		if (fd >= 0)
			close(fd);
		return;
	}
	c->dns = d;
	c->link = &d->clients;
	c->next = d->clients;
	if (c->next)
		c->next->link = &c->next;
	d->clients = c;
	d->n_clients++;
	ev_io_init(&c->io, on_client, fd, EV_READ);
	ev_init(&c->idle, on_idle);
	c->idle.repeat = IDLE_S;
	c->io.data = c->idle.data = c;
	ev_io_start(loop, &c->io);
	ev_timer_again(loop, &c->idle);
}

/* --- life --- */

static int parse_address(const char *text, struct weft_addr *a)
{
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	size_t n = colon ? (size_t)(colon - text) : 0;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

	if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (!n || n >= sizeof(host) || !port || port > UINT16_MAX || *end)
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (addr_parse(a, host) < 0 || !addr_is_loopback(a))
		return -EINVAL;
	a->port = (uint16_t)port;
	return 0;
}

static int open_socket(const struct weft_addr *a, int type)
{
	struct sockaddr_storage sa;
	int family = addr_is_v4(a) ? AF_INET : AF_INET6, on = 1;
	int len = addr_to_sockaddr(a, family, &sa);
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), e;

	if (fd < 0)
		return -errno;
	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa, (socklen_t)len) == 0 &&
	    (type != SOCK_STREAM || listen(fd, CLIENTS_MAX) == 0))
		return fd;
	e = -errno;
	close(fd);
	return e;
}

static void watch(struct dns *d, ev_io *io, int fd, void (*fn)(struct ev_loop *, ev_io *, int))
{
	ev_io_init(io, fn, fd, EV_READ);
	io->data = d;
	ev_io_start(d->loop, io);
}

int dns_start(struct ev_loop *loop, const char *address, struct registry *r, struct dns **out,
	      const char **why)
{
	struct weft_addr a;
	struct dns *d;
	int udp, tcp;

	*out = NULL;
	*why = "";
	if (!*address)
		return 0;
	if (parse_address(address, &a) < 0) {
		*why = "must be a loopback address with a port, such as 127.0.0.1:53";
		return -EINVAL;
	}
	udp = open_socket(&a, SOCK_DGRAM);
	tcp = udp < 0 ? udp : open_socket(&a, SOCK_STREAM);
	d = tcp < 0 ? NULL : calloc(1, sizeof(*d));
	if (!d) {
		if (udp >= 0)
			close(udp);
		if (tcp >= 0)
			close(tcp);
		return tcp < 0 ? tcp : -ENOMEM;
	}
	*d = (struct dns){ .loop = loop, .registry = r, .source = { by_name, by_vip, r } };
	watch(d, &d->udp, udp, on_datagram);
	watch(d, &d->tcp, tcp, on_connection);
	*out = d;
	return 0;
}

void dns_stop(struct dns *d)
{
	if (!d)
		return;
	while (d->clients)
		client_free(d->clients);
	ev_io_stop(d->loop, &d->udp);
	ev_io_stop(d->loop, &d->tcp);
	close(d->udp.fd);
	close(d->tcp.fd);
	free(d);
}
