#include "admin/admin.h"

#include <errno.h>
#include <ev.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/listen.h"
#include "admin/pages.h"
#include "weft/addr.h"

#define CONNECTIONS_MAX 32
#define CONNECTION_MEM (16u << 10)
#define IDLE_S 10u

struct admin {
	struct MHD_Daemon *http;
	struct ev_loop *loop;
	struct registry *registry;
	ev_io io;
	ev_timer timer;
	char *path; /* of a Unix socket, to remove it at the end */
	bool check_host;
};

/* --- answers --- */

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status, char *body, size_t len)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	if (!r) {
		free(body);
		return MHD_NO;
	}
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result reply_error(struct MHD_Connection *c, unsigned status, const char *json)
{
	char *body = strdup(json);

	return body ? reply(c, status, body, strlen(body)) : MHD_NO;
}

/* "localhost", "127.0.0.1:15020", "[::1]:15020", or no Host at all. */
static bool names_this_machine(const char *host)
{
	struct weft_addr a;
	char name[64];
	size_t n;

	if (!host)
		return true;
	if (host[0] == '[') {
		host++;
		n = strcspn(host, "]");
	} else {
		n = strcspn(host, ":");
	}
	if (n >= sizeof(name))
		return false;
	memcpy(name, host, n);
	name[n] = '\0';
	return strcasecmp(name, "localhost") == 0 || addr_parse(&a, name) == 0;
}

static const char *argument(struct MHD_Connection *c, const char *name)
{
	const char *value = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name);

	return value && *value ? value : NULL;
}

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **state)
{
	const struct admin *a = cls;
	const struct page *page = pages_find(url);
	struct pages_query q = { .service = argument(c, "service"), .kind = argument(c, "kind") };
	const char *limit = argument(c, "limit");
	char *body;
	size_t len = 0;

	(void)version;
	(void)upload;
	(void)state;
	*upload_size = 0; /* bodies are not looked at */
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return reply_error(c, MHD_HTTP_METHOD_NOT_ALLOWED,
				   "{\"error\":\"only GET and HEAD: this page is read only\"}\n");
	if (a->check_host &&
	    !names_this_machine(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host")))
		return reply_error(c, MHD_HTTP_FORBIDDEN,
				   "{\"error\":\"the Host header names another machine\"}\n");
	if (!page)
		return reply_error(
			c, MHD_HTTP_NOT_FOUND,
			"{\"error\":\"no such page\",\"pages\":[\"/status\",\"/services\","
			"\"/endpoints\",\"/identities\",\"/documents\",\"/version\",\"/"
			"coverage\"]}\n");
	q.after = argument(c, "after");
	q.limit = limit ? strtoul(limit, NULL, 10) : 0;
	body = page->render(a->registry, &q, &len);
	if (!body)
		return reply_error(c, MHD_HTTP_INTERNAL_SERVER_ERROR,
				   "{\"error\":\"out of memory\"}\n");
	return reply(c, MHD_HTTP_OK, body, len);
}

/* --- the loop --- */

static void arm(struct admin *a)
{
	MHD_UNSIGNED_LONG_LONG ms;

	ev_timer_stop(a->loop, &a->timer);
	if (MHD_get_timeout(a->http, &ms) != MHD_YES)
		return;
	ev_timer_set(&a->timer, (double)ms / 1000, 0);
	ev_timer_start(a->loop, &a->timer);
}

static void run(struct admin *a)
{
	MHD_run(a->http);
	arm(a);
}

static void on_ready(struct ev_loop *loop, ev_io *w, int events)
{
	(void)loop;
	(void)events;
	run(w->data);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int events)
{
	(void)loop;
	(void)events;
	run(w->data);
}

static void on_log(void *cls, const char *format, va_list list)
{
	/* What strangers send is theirs to know. */
	(void)cls;
	(void)format;
	(void)list;
}

static int start_http(struct admin *a, int fd)
{
	const union MHD_DaemonInfo *info;

	a->http = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, answer, a,
		MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_MEM, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_END);
	if (!a->http)
		return -ENOMEM;
	info = MHD_get_daemon_info(a->http, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info) {
		MHD_stop_daemon(a->http);
		a->http = NULL;
		return -ENOTSUP;
	}
	ev_io_init(&a->io, on_ready, info->epoll_fd, EV_READ);
	ev_init(&a->timer, on_timer);
	a->io.data = a->timer.data = a;
	ev_io_start(a->loop, &a->io);
	return 0;
}

int admin_start(struct ev_loop *loop, const char *address, struct registry *r, struct admin **out,
		const char **why)
{
	bool is_unix = strncmp(address, "unix:", 5) == 0, local;
	struct admin *a;
	int fd, e;

	*out = NULL;
	*why = "";
	if (strcmp(address, "off") == 0)
		return 0;
	fd = listen_open(address, &local, why);
	if (fd < 0)
		return fd;
	a = calloc(1, sizeof(*a));
	if (a && is_unix)
		a->path = strdup(address + 5);
	if (!a || (is_unix && !a->path)) {
		close(fd);
		free(a);
		return -ENOMEM;
	}
	a->loop = loop;
	a->registry = r;
	a->check_host = local && !is_unix;
	e = start_http(a, fd); /* from here on the descriptor is libmicrohttpd's, if it started */
	if (e == 0) {
		*out = a;
		return 0;
	}
	if (e == -ENOMEM)
		close(fd);
	free(a->path);
	free(a);
	return e;
}

void admin_stop(struct admin *a)
{
	if (!a)
		return;
	ev_io_stop(a->loop, &a->io);
	ev_timer_stop(a->loop, &a->timer);
	MHD_stop_daemon(a->http);
	if (a->path)
		unlink(a->path);
	free(a->path);
	free(a);
}
