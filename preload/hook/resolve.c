/* Names and addresses of the mesh in the resolver's calls. Order: /etc/hosts, mesh, DNS; unless the mode is enforce, mesh
 * comes last: what resolves without it is left alone, and who lives by mesh names goes on when the mesh is switched off.
 * What is not mesh goes to the real call untouched. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/control.h"
#include "hook/hook.h"

/* --- /etc/hosts --- */

/* Goes over the file byte by byte: lines of an address and names, with comments from '#'. */
struct hosts_scan {
	const char *name;
	size_t len;
	size_t at;      /* bytes of the word that agree so far; beyond len: they do not */
	unsigned words; /* of the line, before this one */
	bool in_word, comment;
};

static char lower(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* True at the end of a word that is the name. */
static bool hosts_byte(struct hosts_scan *s, char c)
{
	bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '#';
	bool found = blank && s->in_word && s->words > 0 && s->at == s->len;

	if (!blank && !s->comment) {
		s->in_word = true;
		s->at = s->at < s->len && lower(c) == lower(s->name[s->at]) ? s->at + 1
									    : s->len + 1;
		return false;
	}
	s->words += s->in_word;
	s->in_word = false;
	s->at = 0;
	if (c == '#')
		s->comment = true;
	if (c == '\n') {
		s->comment = false;
		s->words = 0;
	}
	return found;
}

static bool hosts_has(const char *name)
{
	struct hosts_scan s = { .name = name, .len = strlen(name) };
	bool found = false;
	char buf[4096];
	long fd, n;

	if (s.len && name[s.len - 1] == '.')
		s.len--;
	fd = sys_call(SYS_openat, AT_FDCWD, (long)"/etc/hosts", O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return false;
	while (!found && (n = sys_call(SYS_read, fd, (long)buf, sizeof(buf), 0, 0, 0)) > 0)
		for (long i = 0; i < n && !found; i++)
			found = hosts_byte(&s, buf[i]);
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
	return found || hosts_byte(&s, '\n');
}

/* --- what the mesh knows --- */

static bool is_numeric(const char *name)
{
	struct in_addr in;

	return !*name || strchr(name, ':') || inet_aton(name, &in);
}

static bool has_vip(const struct weft_addr *vip)
{
	static const uint8_t zero[16];

	return memcmp(vip->ip, zero, 16) != 0;
}

enum turn { TURN_NEVER, TURN_FIRST, TURN_LAST };

/* Whether a name is the mesh's to answer, before or after the real call. */
static enum turn find_name(const char *name, struct weft_names_service *svc)
{
	if (!name || is_numeric(name) || mesh_find_name(name, svc) < 0 ||
	    (!has_vip(&svc->vip4) && !has_vip(&svc->vip6)))
		return TURN_NEVER;
	if (control_mode() != WEFT_MODE_ENFORCE)
		return TURN_LAST;
	return hosts_has(name) ? TURN_NEVER : TURN_FIRST;
}

/* True for a virtual address; `name` is then what the program would call its service. */
static bool find_vip(const struct weft_addr *a, char name[static WEFT_SERVICE_MAX + 1])
{
	struct weft_names_service svc, same;
	enum weft_names_kind kind;
	enum weft_reason reason;
	char *dot;

	if (mesh_find_addr(a, &svc, &kind, &reason) < 0 || kind != WEFT_NAMES_VIP)
		return false;
	memcpy(name, svc.name, WEFT_SERVICE_MAX + 1);
	dot = strchr(name, '.');
	if (!dot)
		return true;
	/* In the program's own namespace the first label says it. */
	*dot = '\0';
	if (mesh_find_name(name, &same) < 0 || strcmp(same.name, svc.name) != 0)
		*dot = '.';
	return true;
}

/* The virtual address for a family; NULL: the service has none. */
static const struct weft_addr *vip_of(const struct weft_names_service *svc, int af)
{
	const struct weft_addr *vip = af == AF_INET6 ? &svc->vip6 : &svc->vip4;

	return has_vip(vip) ? vip : NULL;
}

/* --- getaddrinfo --- */

static const struct weft_addr *vip_for(const struct weft_names_service *svc,
				       const struct addrinfo *hints)
{
	int family = hints ? hints->ai_family : AF_UNSPEC;
	const struct weft_addr *vip = vip_of(svc, family == AF_INET6 ? AF_INET6 : AF_INET);

	if (!vip && family == AF_UNSPEC)
		vip = vip_of(svc, AF_INET6);
	if (!vip && family == AF_INET6 && hints->ai_flags & AI_V4MAPPED)
		vip = vip_of(svc, AF_INET);
	return vip;
}

HOOK_EXPORT int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			    struct addrinfo **res)
{
	struct weft_names_service svc;
	const struct weft_addr *vip;
	char text[WEFT_ADDR_TEXT], *name;
	enum turn turn = TURN_NEVER;
	int r;

	if (!hints || !(hints->ai_flags & AI_NUMERICHOST))
		turn = find_name(node, &svc);
	if (turn != TURN_FIRST) {
		r = sys.getaddrinfo(node, service, hints, res);
		if (turn == TURN_NEVER || (r != EAI_NONAME && r != EAI_NODATA && r != EAI_AGAIN))
			return r;
	}
	vip = vip_for(&svc, hints);
	if (!vip)
		return EAI_NODATA;
	/* Order, socket types, services and errors are the real call's. */
	r = sys.getaddrinfo(addr_format(vip, text), service, hints, res);
	if (r || !*res || !(*res)->ai_canonname)
		return r;
	name = strdup(svc.name);
	if (!name) {
		freeaddrinfo(*res);
		return EAI_MEMORY;
	}
	free((*res)->ai_canonname);
	(*res)->ai_canonname = name;
	return 0;
}

/* --- getnameinfo --- */

HOOK_EXPORT int getnameinfo(const struct sockaddr *sa, socklen_t len, char *host, socklen_t hostlen,
			    char *serv, socklen_t servlen, int flags)
{
	char name[WEFT_SERVICE_MAX + 1];
	struct weft_addr a;
	size_t n;

	if (!host || !hostlen || flags & NI_NUMERICHOST || addr_from_sockaddr(&a, sa, len) < 0 ||
	    !find_vip(&a, name))
		return sys.getnameinfo(sa, len, host, hostlen, serv, servlen, flags);
	n = strlen(name) + 1;
	if (n > hostlen)
		return EAI_OVERFLOW;
	if (serv && servlen) {
		int r = sys.getnameinfo(sa, len, NULL, 0, serv, servlen, flags & ~NI_NAMEREQD);

		if (r)
			return r;
	}
	memcpy(host, name, n);
	return 0;
}

/* --- gethostby* --- */

/* What the caller's buffer holds, in front of the name's bytes. */
struct host_block {
	char *aliases[2];
	char *addresses[2];
	uint8_t address[16];
};

/* Fills `ret` from `buf`. 0 or ERANGE, as the _r functions return it. */
static int fill_host(struct hostent *ret, char *buf, size_t len, const char *name,
		     const char *alias, const struct weft_addr *a, int af)
{
	size_t pad = -(uintptr_t)buf & (_Alignof(struct host_block) - 1), n = strlen(name) + 1;
	size_t k = strcasecmp(name, alias) ? strlen(alias) + 1 : 0;
	struct host_block *b = (struct host_block *)(void *)(buf + pad);
	char *text = (char *)(b + 1);

	if (len < pad + sizeof(*b) + n + k)
		return ERANGE;
	memcpy(text, name, n);
	memcpy(text + n, alias, k);
	memcpy(b->address, af == AF_INET6 ? a->ip : a->ip + 12, af == AF_INET6 ? 16 : 4);
	b->aliases[0] = k ? text + n : NULL;
	b->aliases[1] = NULL;
	b->addresses[0] = (char *)b->address;
	b->addresses[1] = NULL;
	*ret = (struct hostent){
		.h_name = text,
		.h_aliases = b->aliases,
		.h_addrtype = af,
		.h_length = af == AF_INET6 ? 16 : 4,
		.h_addr_list = b->addresses,
	};
	return 0;
}

/* Ends an _r function: `r` is what fill_host() said. */
static int give_host(int r, struct hostent *ret, struct hostent **res, int *herr)
{
	*res = r ? NULL : ret;
	*herr = r ? NETDB_INTERNAL : NETDB_SUCCESS;
	if (r)
		errno = r;
	return r;
}

static int host_by_service(const struct weft_names_service *svc, const char *name, int af,
			   struct hostent *ret, char *buf, size_t len, struct hostent **res,
			   int *herr)
{
	const struct weft_addr *vip = vip_of(svc, af);

	if (vip)
		return give_host(fill_host(ret, buf, len, svc->name, name, vip, af), ret, res,
				 herr);
	*res = NULL;
	*herr = NO_DATA;
	return 0;
}

HOOK_EXPORT int gethostbyname2_r(const char *name, int af, struct hostent *ret, char *buf,
				 size_t len, struct hostent **res, int *herr)
{
	struct weft_names_service svc;
	enum turn turn = af == AF_INET || af == AF_INET6 ? find_name(name, &svc) : TURN_NEVER;
	int r;

	if (turn != TURN_FIRST) {
		r = sys.gethostbyname2_r(name, af, ret, buf, len, res, herr);
		if (turn == TURN_NEVER || r || *res)
			return r;
	}
	return host_by_service(&svc, name, af, ret, buf, len, res, herr);
}

HOOK_EXPORT int gethostbyname_r(const char *name, struct hostent *ret, char *buf, size_t len,
				struct hostent **res, int *herr)
{
	struct weft_names_service svc;
	enum turn turn = find_name(name, &svc);
	int r;

	if (turn != TURN_FIRST) {
		r = sys.gethostbyname_r(name, ret, buf, len, res, herr);
		if (turn == TURN_NEVER || r || *res)
			return r;
	}
	return host_by_service(&svc, name, AF_INET, ret, buf, len, res, herr);
}

/* Of the calls that are not thread-safe: the last answer of each process, as libc keeps it. */
static struct hostent last_host;
static char last_buf[sizeof(struct host_block) + 2 * (WEFT_SERVICE_MAX + 1)]
	__attribute__((aligned(16)));

static struct hostent *static_host(const struct weft_names_service *svc, const char *name, int af)
{
	struct hostent *res;
	int herr;

	host_by_service(svc, name, af, &last_host, last_buf, sizeof(last_buf), &res, &herr);
	if (!res)
		h_errno = herr;
	return res;
}

HOOK_EXPORT struct hostent *gethostbyname(const char *name)
{
	struct weft_names_service svc;
	enum turn turn = find_name(name, &svc);
	struct hostent *real = turn == TURN_FIRST ? NULL : sys.gethostbyname(name);

	return real || turn == TURN_NEVER ? real : static_host(&svc, name, AF_INET);
}

HOOK_EXPORT struct hostent *gethostbyname2(const char *name, int af)
{
	struct weft_names_service svc;
	enum turn turn = af == AF_INET || af == AF_INET6 ? find_name(name, &svc) : TURN_NEVER;
	struct hostent *real = turn == TURN_FIRST ? NULL : sys.gethostbyname2(name, af);

	return real || turn == TURN_NEVER ? real : static_host(&svc, name, af);
}

static bool find_raw(const void *addr, socklen_t len, int type, struct weft_addr *a,
		     char name[static WEFT_SERVICE_MAX + 1])
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

	if (type == AF_INET && len == 4) {
		memcpy(&in.sin_addr, addr, 4);
		addr_from_sockaddr(a, (struct sockaddr *)&in, sizeof(in));
	} else if (type == AF_INET6 && len == 16) {
		memcpy(&in6.sin6_addr, addr, 16);
		addr_from_sockaddr(a, (struct sockaddr *)&in6, sizeof(in6));
	} else {
		return false;
	}
	return find_vip(a, name);
}

HOOK_EXPORT int gethostbyaddr_r(const void *addr, socklen_t len, int type, struct hostent *ret,
				char *buf, size_t size, struct hostent **res, int *herr)
{
	char name[WEFT_SERVICE_MAX + 1];
	struct weft_addr a;

	if (!find_raw(addr, len, type, &a, name))
		return sys.gethostbyaddr_r(addr, len, type, ret, buf, size, res, herr);
	return give_host(fill_host(ret, buf, size, name, name, &a, type), ret, res, herr);
}

HOOK_EXPORT struct hostent *gethostbyaddr(const void *addr, socklen_t len, int type)
{
	char name[WEFT_SERVICE_MAX + 1];
	struct weft_addr a;

	if (!find_raw(addr, len, type, &a, name))
		return sys.gethostbyaddr(addr, len, type);
	fill_host(&last_host, last_buf, sizeof(last_buf), name, name, &a, type);
	return &last_host;
}
