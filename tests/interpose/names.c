/* The resolver's answers for what is no mesh name. */
#include "probe.h"

#include <netdb.h>

static void look_up(const char *node, const char *service, const struct addrinfo *hints)
{
	struct addrinfo *res = NULL;
	int r = getaddrinfo(node, service, hints, &res);

	printf("%s %s: %s\n", node ? node : "NULL", service ? service : "NULL",
	       r ? gai_strerror(r) : "found");
	for (struct addrinfo *a = res; a; a = a->ai_next) {
		char host[64] = "", serv[64] = "";

		r = getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), serv, sizeof(serv),
				NI_NUMERICHOST | NI_NUMERICSERV);
		printf("  %d %d %d %d %s %s %s\n", a->ai_family, a->ai_socktype, a->ai_protocol, r,
		       host, serv, a->ai_canonname ? a->ai_canonname : "-");
	}
	if (res)
		freeaddrinfo(res);
}

static void look_ups(void)
{
	struct addrinfo numeric = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM },
			passive = { .ai_flags = AI_PASSIVE,
				    .ai_socktype = SOCK_STREAM,
				    .ai_family = AF_INET },
			v6 = { .ai_family = AF_INET6,
			       .ai_flags = AI_V4MAPPED,
			       .ai_socktype = SOCK_STREAM },
			canon = { .ai_flags = AI_CANONNAME | AI_NUMERICHOST,
				  .ai_socktype = SOCK_DGRAM },
			bad = { .ai_socktype = 77 }, family = { .ai_family = 77 };

	look_up("127.0.0.1", "80", NULL);
	look_up("127.0.0.1", "http", &numeric);
	look_up("::1", "443", &numeric);
	look_up("localhost", "1", &numeric);
	look_up(NULL, "8080", &passive);
	look_up(NULL, "8080", NULL);
	look_up("127.0.0.1", NULL, &v6);
	look_up("192.0.2.7", "7", &canon);
	look_up("127.0.0.1", "no-such-service", NULL);
	look_up("127.0.0.1", "80", &bad);
	look_up("127.0.0.1", "80", &family);
	look_up(NULL, NULL, NULL);
	look_up("localhost", "80",
		&(struct addrinfo){ .ai_family = AF_INET, .ai_socktype = SOCK_STREAM });
}

static void show_host(const char *name, const struct hostent *h)
{
	char text[64] = "";

	if (!h) {
		printf("%s: h_errno %d\n", name, h_errno);
		return;
	}
	inet_ntop(h->h_addrtype, h->h_addr_list[0], text, sizeof(text));
	printf("%s: %s %d %d %s\n", name, h->h_name, h->h_addrtype, h->h_length, text);
}

static void old_calls(void)
{
	struct hostent ret, *res = NULL;
	struct in_addr a = { htonl(INADDR_LOOPBACK) };
	char buf[512], small[4];
	int herr = 0;

	show_host("gethostbyname", gethostbyname("127.0.0.1"));
	show_host("gethostbyname localhost", gethostbyname("localhost"));
	show_host("gethostbyname2", gethostbyname2("::1", AF_INET6));
	printf("%d\n", gethostbyname_r("127.0.0.1", &ret, buf, sizeof(buf), &res, &herr));
	show_host("gethostbyname_r", res);
	printf("short buffer: %s\n", strerrorname_np(gethostbyname_r("127.0.0.1", &ret, small,
								     sizeof(small), &res, &herr)));
	printf("%d\n", gethostbyname2_r("127.0.0.1", AF_INET, &ret, buf, sizeof(buf), &res, &herr));
	show_host("gethostbyname2_r", res);
	show_host("gethostbyaddr", gethostbyaddr(&a, sizeof(a), AF_INET));
}

static void backwards(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(80),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char host[64] = "", serv[64] = "";

	printf("%d ", getnameinfo((struct sockaddr *)&a, sizeof(a), host, sizeof(host), serv,
				  sizeof(serv), 0));
	printf("%s %s\n", host, serv);
	printf("%d\n",
	       getnameinfo((struct sockaddr *)&a, sizeof(a), host, 2, NULL, 0, NI_NUMERICHOST));
	printf("%d\n", getnameinfo((struct sockaddr *)&a, 3, host, sizeof(host), NULL, 0, 0));
}

int main(void)
{
	probe_start();
	look_ups();
	old_calls();
	backwards();
	return 0;
}
