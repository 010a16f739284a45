/* The resolver's calls in all their combinations, for names that are no mesh names.
 *   resolve          numeric addresses and what /etc/hosts has
 *   resolve NAME...  the same questions about each NAME, such as a mesh name */
#include "probe.h"

#include <netdb.h>

static void show_results(struct addrinfo *res)
{
	for (struct addrinfo *a = res; a; a = a->ai_next) {
		char host[64] = "", serv[64] = "";

		MUST(getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), serv, sizeof(serv),
				 NI_NUMERICHOST | NI_NUMERICSERV) == 0);
		printf("    family %d type %d protocol %d flags %#x %s %s %s\n", a->ai_family,
		       a->ai_socktype, a->ai_protocol, (unsigned)a->ai_flags, host, serv,
		       a->ai_canonname ? a->ai_canonname : "-");
	}
}

static void ask(const char *node, const char *service, const struct addrinfo *hints)
{
	struct addrinfo *res = NULL;
	int r = getaddrinfo(node, service, hints, &res);

	printf("  %s: %s\n", service ? service : "-", r ? gai_strerror(r) : "found");
	if (r)
		return;
	show_results(res);
	freeaddrinfo(res);
}

static void all_hints(const char *node, const int *families, size_t n_families)
{
	static const int flags[] = { 0,
				     AI_CANONNAME,
				     AI_PASSIVE,
				     AI_NUMERICHOST,
				     AI_NUMERICSERV,
				     AI_V4MAPPED,
				     AI_V4MAPPED | AI_ALL | AI_CANONNAME,
				     AI_NUMERICHOST | AI_CANONNAME };
	static const int types[] = { 0, SOCK_STREAM, SOCK_DGRAM };
	static const char *const services[] = { NULL, "80", "http", "no-such-service" };

	printf("%s without hints\n", node);
	ask(node, "80", NULL);
	for (size_t f = 0; f < n_families; f++)
		for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
			for (size_t t = 0; t < 3; t++) {
				struct addrinfo hints = { .ai_family = families[f],
							  .ai_flags = flags[i],
							  .ai_socktype = types[t] };

				printf("%s family %d flags %#x type %d\n", node, families[f],
				       (unsigned)flags[i], types[t]);
				for (size_t s = 0; s < 4; s++)
					ask(node, services[s], &hints);
			}
}

static void show_host(const char *call, const struct hostent *h)
{
	char text[64] = "";

	if (!h) {
		printf("%s: nothing, h_errno %d\n", call, h_errno);
		return;
	}
	printf("%s: %s family %d length %d", call, h->h_name, h->h_addrtype, h->h_length);
	for (char **p = h->h_addr_list; *p; p++)
		printf(" %s", inet_ntop(h->h_addrtype, *p, text, sizeof(text)));
	for (char **p = h->h_aliases; *p; p++)
		printf(" alias %s", *p);
	printf("\n");
}

/* With every size of buffer: too small ones say so and are not written beyond. */
static void reentrant(const char *name)
{
	char buf[600 + 8];
	struct hostent h, *res;
	int last = -1, herr;

	for (size_t n = 0; n <= 600; n++) {
		int r;

		memset(buf, 0x5a, sizeof(buf));
		errno = PROBE_ERRNO;
		res = &h;
		r = gethostbyname_r(name, &h, buf, n, &res, &herr);
		for (size_t i = n; i < sizeof(buf); i++)
			MUST(buf[i] == 0x5a);
		MUST(r != ERANGE || (!res && herr == NETDB_INTERNAL));
		if (r != last)
			printf("gethostbyname_r(%s): %s\n", name, r ? strerrorname_np(r) : "0");
		last = r;
	}
	show_host("gethostbyname_r", res);
	last = gethostbyname2_r(name, AF_INET, &h, buf, sizeof(buf), &res, &herr);
	printf("gethostbyname2_r = %d\n", last);
	show_host("gethostbyname2_r", res);
}

static void old_calls(const char *name)
{
	struct hostent *h, *res, reverse;
	char buf[1024], address[16];
	int herr, family, length;

	show_host("gethostbyname", gethostbyname(name));
	h = gethostbyname2(name, AF_INET);
	show_host("gethostbyname2", h);
	reentrant(name);
	if (!h)
		return;
	family = h->h_addrtype;
	length = h->h_length;
	memcpy(address, h->h_addr_list[0], (size_t)length);
	show_host("gethostbyaddr", gethostbyaddr(address, (socklen_t)length, family));
	MUST(gethostbyaddr_r(address, (socklen_t)length, family, &reverse, buf, sizeof(buf), &res,
			     &herr) == 0);
	show_host("gethostbyaddr_r", res);
	printf("gethostbyaddr_r in 8 bytes: %s\n",
	       gethostbyaddr_r(address, (socklen_t)length, family, &reverse, buf, 8, &res, &herr) ==
			       ERANGE
		       ? "ERANGE"
		       : "0");
}

static void reverse(const char *name)
{
	static const int flags[] = { 0, NI_NUMERICHOST, NI_NUMERICSERV, NI_NAMEREQD,
				     NI_NUMERICHOST | NI_NUMERICSERV };
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *res;
	char host[300], serv[64];

	if (getaddrinfo(name, "80", &hints, &res))
		return;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		int r = getnameinfo(res->ai_addr, res->ai_addrlen, host, sizeof(host), serv,
				    sizeof(serv), flags[i]);

		printf("getnameinfo flags %d: %s %s %s\n", flags[i], r ? gai_strerror(r) : "0",
		       r ? "" : host, r ? "" : serv);
		r = getnameinfo(res->ai_addr, res->ai_addrlen, host, 3, serv, sizeof(serv),
				flags[i]);
		printf("  host in 3 bytes: %s\n", r ? gai_strerror(r) : "0");
		r = getnameinfo(res->ai_addr, res->ai_addrlen, host, sizeof(host), serv, 2,
				flags[i]);
		printf("  service in 2 bytes: %s\n", r ? gai_strerror(r) : "0");
		r = getnameinfo(res->ai_addr, res->ai_addrlen, NULL, 0, serv, sizeof(serv),
				flags[i]);
		printf("  service alone: %s %s\n", r ? gai_strerror(r) : "0", r ? "" : serv);
		r = getnameinfo(res->ai_addr, 3, host, sizeof(host), serv, sizeof(serv), flags[i]);
		printf("  short address: %s\n", r ? gai_strerror(r) : "0");
	}
	freeaddrinfo(res);
}

int main(int argc, char **argv)
{
	static const int both[] = { AF_UNSPEC, AF_INET, AF_INET6 }, v4[] = { AF_INET };

	probe_start();
	for (int i = 1; i < argc; i++) {
		all_hints(argv[i], both, 3);
		old_calls(argv[i]);
		reverse(argv[i]);
	}
	if (argc > 1)
		return 0;
	all_hints("127.0.0.1", both, 3);
	all_hints("::1", both, 3);
	all_hints("localhost", v4, 1); /* IPv6 would be a question to DNS */
	old_calls("127.0.0.1");
	old_calls("localhost");
	reverse("127.0.0.1");
	return 0;
}
