/* A small HTTP/1.1 load generator for scripts/bench, where wrk and ab do not do: it presents a client certificate and
 * verifies the server's (wrk has no client certificates, ab verifies nothing), makes a new connection per request, sends at
 * a given rate and measures from when a request was due, and holds idle connections.
 *
 *   load [-t processes] [-c connections] [-d seconds] [-r requests/s] [-n] [-i] [-C cert -K key -A ca] host port path
 *     -n   a new connection for each request
 *     -i   one request on each connection, then "ready" on stdout, and hold them until stdin ends
 * Prints one line of JSON. Without -C the connections are plaintext. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_US 500000
#define LATENCY_MAX_US 200000
#define PROCESSES_MAX 16
#define HEAD_MAX 4096

enum state { IDLE, CONNECTING, SHAKING, WRITING, READING };

struct conn {
	enum state state;
	int fd;
	SSL *ssl;
	int64_t since; /* when the request was due, or made */
	size_t sent, head_len;
	long left; /* bytes of the body still to come; -1 while the head is read */
	char head[HEAD_MAX];
};

struct result {
	uint64_t requests, errors, bytes;
	int64_t elapsed_us;
	char error[120];                         /* the first one */
	uint32_t latency_us[LATENCY_MAX_US + 1]; /* the last one holds all that took longer */
};

static struct {
	int processes, connections;
	double seconds, rate;
	bool fresh, idle;
	const char *cert, *key, *ca;
	struct addrinfo *to;
	char request[512];
	size_t request_len;
} opt = { .processes = 1, .connections = 1, .seconds = 3 };

static SSL_CTX *tls;
static int ep, timer = -1;
static struct result *result;
static int64_t began, due_next; /* of the open loop */
static uint64_t due_sent;

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(struct conn *c, uint32_t events, int op)
{
	struct epoll_event e = { .events = events, .data.ptr = c };

	if (epoll_ctl(ep, op, c->fd, &e) < 0)
		die("epoll_ctl");
}

static void hang_up(struct conn *c)
{
	if (c->ssl) {
		/* One close_notify, as nginx and curl do; the answer is not awaited. */
		if (c->state == IDLE)
			SSL_shutdown(c->ssl);
		SSL_free(c->ssl);
	}
	if (c->fd >= 0)
		close(c->fd);
	c->ssl = NULL;
	c->fd = -1;
	c->state = IDLE;
}

static void failed(struct conn *c, const char *what)
{
	unsigned long e = ERR_peek_error();

	if (!result->errors++)
		snprintf(result->error, sizeof(result->error), "%s: %s", what,
			 e ? ERR_reason_error_string(e) : strerror(errno));
	ERR_clear_error();
	hang_up(c);
}

/* 1: go on; 0: wait for the socket; -1: failed. */
static int tls_wait(struct conn *c, int r)
{
	int e = SSL_get_error(c->ssl, r);

	if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
		return -1;
	watch(c, e == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT, EPOLL_CTL_MOD);
	return 0;
}

static ssize_t take(struct conn *c, void *buf, size_t n)
{
	int r;

	if (!c->ssl)
		return recv(c->fd, buf, n, 0);
	r = SSL_read(c->ssl, buf, (int)n);
	if (r <= 0 && tls_wait(c, r) == 0) {
		errno = EAGAIN;
		return -1;
	}
	return r;
}

static ssize_t put(struct conn *c, const void *buf, size_t n)
{
	int r;

	if (!c->ssl)
		return send(c->fd, buf, n, MSG_NOSIGNAL);
	r = SSL_write(c->ssl, buf, (int)n);
	if (r <= 0 && tls_wait(c, r) == 0)
		errno = EAGAIN;
	return r;
}

static void dial(struct conn *c)
{
	int one = 1;

	c->fd = socket(opt.to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->state = CONNECTING;
	if (connect(c->fd, opt.to->ai_addr, opt.to->ai_addrlen) < 0 && errno != EINPROGRESS) {
		failed(c, "connect");
		return;
	}
	watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static int connected(struct conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	errno = err;
	if (err)
		return -1;
	c->state = WRITING;
	if (tls) {
		c->ssl = SSL_new(tls);
		SSL_set_fd(c->ssl, c->fd);
		SSL_set_connect_state(c->ssl);
		c->state = SHAKING;
	}
	return 1;
}

static int shake(struct conn *c)
{
	int r = SSL_do_handshake(c->ssl);

	if (r != 1)
		return tls_wait(c, r);
	c->state = WRITING;
	return 1;
}

static int write_request(struct conn *c)
{
	ssize_t n = put(c, opt.request + c->sent, opt.request_len - c->sent);

	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	c->sent += (size_t)n;
	if (c->sent < opt.request_len)
		return 1;
	c->state = READING;
	c->left = -1;
	c->head_len = 0;
	watch(c, EPOLLIN, EPOLL_CTL_MOD);
	return 1;
}

/* The head is complete: how much of the body came with it? */
static int parse_head(struct conn *c)
{
	char *end, *length;

	c->head[c->head_len] = '\0';
	end = strstr(c->head, "\r\n\r\n");
	if (!end)
		return c->head_len == HEAD_MAX - 1 ? -1 : 1;
	length = strcasestr(c->head, "\r\nContent-Length:");
	if (strncmp(c->head, "HTTP/1.1 200", 12) != 0 || !length)
		return -1;
	c->left = atol(length + 17) - (c->head + c->head_len - end - 4);
	return 1;
}

static void completed(struct conn *c)
{
	int64_t now = now_us(), took = now - c->since;

	c->state = IDLE;
	if (now - began >= WARM_UP_US) {
		result->requests++;
		result->latency_us[took < LATENCY_MAX_US ? took : LATENCY_MAX_US]++;
	}
	if (opt.fresh)
		hang_up(c);
}

static int read_response(struct conn *c)
{
	static char body[65536];
	ssize_t n = c->left < 0 ? take(c, c->head + c->head_len, HEAD_MAX - 1 - c->head_len)
				: take(c, body, sizeof(body));

	if (n <= 0) {
		if (n < 0 && errno == EAGAIN)
			return 0;
		errno = n ? errno : EPIPE;
		return -1;
	}
	result->bytes += (uint64_t)n;
	if (c->left < 0) {
		c->head_len += (size_t)n;
		if (parse_head(c) < 0) {
			errno = EBADMSG;
			return -1;
		}
	} else {
		c->left -= n;
	}
	if (!c->left)
		completed(c);
	return 1;
}

static void advance(struct conn *c)
{
	static int (*const steps[])(struct conn *) = {
		[CONNECTING] = connected,
		[SHAKING] = shake,
		[WRITING] = write_request,
		[READING] = read_response,
	};
	static const char *const names[] = { "idle", "connect", "handshake", "write", "read" };
	int r = 1;

	while (r > 0 && c->state != IDLE) {
		r = steps[c->state](c);
		if (r < 0)
			failed(c, names[c->state]);
	}
}

static void begin(struct conn *c, int64_t since)
{
	c->since = since;
	c->sent = 0;
	if (c->fd < 0) {
		dial(c);
	} else {
		c->state = WRITING;
		advance(c);
	}
}

/* The server closed, or sent what nobody asked for, on a connection at rest. */
static void disturbed(struct conn *c)
{
	char byte;

	if (take(c, &byte, 1) < 0 && errno == EAGAIN)
		return;
	errno = EPIPE;
	failed(c, "idle");
}

/* Starts what is due on connections that are free. */
static void start_due(struct conn *conns, int n)
{
	static int64_t armed;
	struct itimerspec t = { .it_value.tv_sec = 0 };
	int64_t now = now_us();

	for (int i = 0; i < n && (!opt.rate || due_next <= now); i++) {
		if (conns[i].state != IDLE)
			continue;
		begin(&conns[i], opt.rate ? due_next : now_us());
		if (opt.rate)
			due_next = began +
				   (int64_t)((double)++due_sent * 1e6 * opt.processes / opt.rate);
	}
	if (!opt.rate || armed == due_next || due_next <= now)
		return;
	armed = due_next;
	t.it_value.tv_sec = due_next / 1000000, t.it_value.tv_nsec = due_next % 1000000 * 1000;
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static void wait_events(void)
{
	struct epoll_event ev[256];
	int n = epoll_wait(ep, ev, 256, 100);

	for (int i = 0; i < n; i++) {
		struct conn *c = ev[i].data.ptr;

		if (c && c->state == IDLE)
			disturbed(c);
		else if (c)
			advance(c);
	}
}

static void hold_idle(struct conn *conns, int n)
{
	char byte;

	for (int i = 0; i < n; i++) {
		begin(&conns[i], now_us());
		while (conns[i].state != IDLE)
			wait_events();
	}
	printf("ready %d errors %lu\n", n, (unsigned long)result->errors);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
}

static void make_tls(void)
{
	tls = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
	SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(tls, SSL_OP_NO_TICKET);
	SSL_CTX_set_mode(tls, SSL_MODE_AUTO_RETRY | SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
	if (!SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256") ||
	    !SSL_CTX_use_certificate_chain_file(tls, opt.cert) ||
	    !SSL_CTX_use_PrivateKey_file(tls, opt.key, SSL_FILETYPE_PEM) ||
	    !SSL_CTX_load_verify_file(tls, opt.ca)) {
		ERR_print_errors_fp(stderr);
		exit(1);
	}
}

static void run(void)
{
	int n = opt.connections / opt.processes;
	struct conn *conns = calloc((size_t)n, sizeof(*conns));
	struct epoll_event e = { .events = EPOLLIN | EPOLLET }; /* the timer: seen, never read */

	ep = epoll_create1(EPOLL_CLOEXEC);
	if (opt.cert)
		make_tls();
	for (int i = 0; i < n; i++)
		conns[i].fd = -1;
	if (opt.rate) {
		timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		epoll_ctl(ep, EPOLL_CTL_ADD, timer, &e);
	}
	began = due_next = now_us();
	if (opt.idle) {
		hold_idle(conns, n);
		return;
	}
	while (now_us() - began < WARM_UP_US + (int64_t)(opt.seconds * 1e6)) {
		start_due(conns, n);
		wait_events();
	}
	result->elapsed_us = now_us() - began - WARM_UP_US;
}

static uint64_t percentile(const struct result *all, int n, uint64_t total, double part)
{
	uint64_t seen = 0;

	for (uint64_t us = 0; us <= LATENCY_MAX_US; us++) {
		for (int i = 0; i < n; i++)
			seen += all[i].latency_us[us];
		if (seen && (double)seen >= part * (double)total)
			return us;
	}
	return 0;
}

static void report(const struct result *all, int n)
{
	uint64_t requests = 0, errors = 0, bytes = 0;
	double per_second = 0;
	const char *error = "";

	for (int i = 0; i < n; i++) {
		requests += all[i].requests;
		errors += all[i].errors;
		bytes += all[i].bytes;
		error = all[i].error[0] ? all[i].error : error;
		if (all[i].elapsed_us > 0)
			per_second += (double)all[i].requests * 1e6 / (double)all[i].elapsed_us;
	}
	printf("{\"requests\": %lu, \"errors\": %lu, \"bytes\": %lu, \"per_second\": %.1f, "
	       "\"p50_us\": %lu, \"p99_us\": %lu, "
	       "\"error\": \"%s\"}\n",
	       (unsigned long)requests, (unsigned long)errors, (unsigned long)bytes, per_second,
	       (unsigned long)percentile(all, n, requests, 0.5),
	       (unsigned long)percentile(all, n, requests, 0.99), error);
}

static void parse(int argc, char **argv)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
	int o;

	while ((o = getopt(argc, argv, "t:c:d:r:niC:K:A:")) != -1) {
		switch (o) {
		case 't':
			opt.processes = atoi(optarg);
			break;
		case 'c':
			opt.connections = atoi(optarg);
			break;
		case 'd':
			opt.seconds = atof(optarg);
			break;
		case 'r':
			opt.rate = atof(optarg);
			break;
		case 'n':
			opt.fresh = true;
			break;
		case 'i':
			opt.idle = true;
			break;
		case 'C':
			opt.cert = optarg;
			break;
		case 'K':
			opt.key = optarg;
			break;
		case 'A':
			opt.ca = optarg;
			break;
		default:
			exit(2);
		}
	}
	if (argc - optind != 3 || opt.processes < 1 || opt.processes > PROCESSES_MAX ||
	    opt.connections < opt.processes || (opt.cert && (!opt.key || !opt.ca))) {
		fprintf(stderr, "usage: load [options] host port path; see the head of load.c\n");
		exit(2);
	}
	if (getaddrinfo(argv[optind], argv[optind + 1], &hints, &opt.to))
		die("host");
	opt.request_len = (size_t)snprintf(opt.request, sizeof(opt.request),
					   "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n",
					   argv[optind + 2], argv[optind],
					   opt.fresh ? "close" : "keep-alive");
	if (opt.request_len >= sizeof(opt.request))
		exit(2);
}

int main(int argc, char **argv)
{
	struct result *all;
	int failures = 0, status;

	parse(argc, argv);
	all = mmap(NULL, sizeof(*all) * PROCESSES_MAX, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		die("mmap");
	result = all;
	if (opt.idle) {
		opt.processes = 1;
		run();
		return all->errors != 0;
	}
	for (int i = 0; i < opt.processes; i++) {
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (!child) {
			result = &all[i];
			run();
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		failures += status != 0;
	report(all, opt.processes);
	return failures != 0;
}
