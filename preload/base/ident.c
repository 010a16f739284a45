#include "weft/ident.h"

#include <errno.h>
#include <string.h>

#include "weft/env.h"

#define SCHEME "spiffe://"

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

bool label_is_valid(const char *s, size_t len)
{
	if (!len || len > WEFT_LABEL_MAX || s[0] == '-' || s[len - 1] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_lower_alnum(s[i]) && s[i] != '-')
			return false;
	return true;
}

/* A Kubernetes label value, which a version is: "v1", "2024.1_rc". */
static bool version_is_valid(const char *s, size_t len)
{
	if (!len || len > WEFT_LABEL_MAX || !is_alnum(s[0]) || !is_alnum(s[len - 1]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_alnum(s[i]) && !strchr("-_.", s[i]))
			return false;
	return true;
}

/* SPIFFE-ID 2.1: lower case letters, digits, dots, dashes and underscores. */
static bool trust_domain_is_valid(const char *s, size_t len)
{
	if (!len || len > WEFT_HOST_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_lower_alnum(s[i]) && !(s[i] && strchr("-_.", s[i])))
			return false;
	return true;
}

static void copy(char *out, const char *s, size_t len)
{
	memcpy(out, s, len);
	out[len] = '\0';
}

/* Takes `literal` from the front of *s. */
static bool skip(const char **s, const char *end, const char *literal)
{
	size_t n = strlen(literal);

	if ((size_t)(end - *s) < n || memcmp(*s, literal, n) != 0)
		return false;
	*s += n;
	return true;
}

/* Bytes up to the next `stop`, or up to the end. */
static size_t span(const char *s, const char *end, char stop)
{
	const char *p = memchr(s, stop, (size_t)(end - s));

	return (size_t)((p ? p : end) - s);
}

int spiffe_parse(struct weft_spiffe *id, const char *text, size_t len)
{
	const char *s = text, *end = text + len, *td, *ns;
	size_t td_len, ns_len;

	if (len > WEFT_SPIFFE_MAX || !skip(&s, end, SCHEME))
		return -EINVAL;
	td = s;
	td_len = span(s, end, '/');
	s += td_len;
	if (!trust_domain_is_valid(td, td_len) || !skip(&s, end, "/ns/"))
		return -EINVAL;
	ns = s;
	ns_len = span(s, end, '/');
	s += ns_len;
	if (!label_is_valid(ns, ns_len) || !skip(&s, end, "/sa/"))
		return -EINVAL;
	if (!label_is_valid(s, (size_t)(end - s)))
		return -EINVAL;
	copy(id->trust_domain, td, td_len);
	copy(id->ns, ns, ns_len);
	copy(id->service, s, (size_t)(end - s));
	return 0;
}

/* Appends `s` to the text of *n bytes in `out`; *n grows past `size` where it does not fit. */
static void append(char *out, size_t size, size_t *n, const char *s)
{
	size_t len = strlen(s);

	if (*n + len < size)
		memcpy(out + *n, s, len + 1);
	*n += len;
}

int spiffe_format(const struct weft_spiffe *id, char *out, size_t size)
{
	const char *parts[] = { SCHEME, id->trust_domain, "/ns/", id->ns, "/sa/", id->service };
	size_t n = 0;

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		append(out, size, &n, parts[i]);
	return n < size ? (int)n : -ENAMETOOLONG;
}

static int parse_ports(struct weft_claim *c, const char *s, const char **why)
{
	for (;;) {
		unsigned port = 0, digits = 0;

		for (; *s >= '0' && *s <= '9' && digits < 6; s++, digits++)
			port = port * 10 + (unsigned)(*s - '0');
		if (!digits || !port || port > 65535 || (*s && *s != ',')) {
			*why = "ports are numbers from 1 to 65535, separated by commas";
			return -EINVAL;
		}
		if (c->n_ports == WEFT_PORTS_MAX) {
			*why = "too many ports";
			return -EINVAL;
		}
		c->ports[c->n_ports++] = (unsigned short)port;
		if (!*s++)
			return 0;
	}
}

static int parse_claim(struct weft_claim *c, const char *text, const char **why)
{
	size_t head = strcspn(text, ":"), n;
	const char *s = text, *end = text + head;

	if (strlen(text) > WEFT_SPEC_MAX) {
		*why = "longer than 1024 bytes";
		return -EINVAL;
	}
	n = span(s, end, '/');
	if (s + n < end) {
		if (!label_is_valid(s, n)) {
			*why = "the namespace is not a label of [a-z0-9-], at most 63 long";
			return -EINVAL;
		}
		copy(c->ns, s, n);
		s += n + 1;
	}
	n = span(s, end, '@');
	if (!label_is_valid(s, n)) {
		*why = "the service is not a label of [a-z0-9-], at most 63 long";
		return -EINVAL;
	}
	copy(c->name, s, n);
	s += n;
	if (s < end) {
		s++;
		if (!version_is_valid(s, (size_t)(end - s))) {
			*why = "the version is not made of [A-Za-z0-9._-], at most 63 long";
			return -EINVAL;
		}
		copy(c->version, s, (size_t)(end - s));
	}
	return *end ? parse_ports(c, end + 1, why) : 0;
}

int claim_parse(struct weft_claim *c, const char *text, const char **why)
{
	struct weft_claim claim = { .n_ports = 0 };
	int r = parse_claim(&claim, text, why);

	if (r == 0)
		*c = claim;
	return r;
}

/* Lower case, no trailing dot, labels of 1 to 63 bytes. Returns the length or -EINVAL. */
static int fold_host(char out[static WEFT_HOST_MAX + 1], const char *name)
{
	size_t len = strnlen(name, WEFT_HOST_MAX + 2), label = 0;

	if (len && name[len - 1] == '.')
		len--;
	if (!len || len > WEFT_HOST_MAX)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];

		if (c == '.' ? !label : (!is_alnum(c) && c != '-' && c != '_'))
			return -EINVAL;
		label = c == '.' ? 0 : label + 1;
		if (label > WEFT_LABEL_MAX)
			return -EINVAL;
		out[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
	}
	out[len] = '\0';
	return label ? (int)len : -EINVAL;
}

/* Cuts `suffix` off the end of `host` if something is left before it. */
static bool cut_suffix(char *host, const char *suffix)
{
	size_t n = strlen(host), k = strlen(suffix);

	if (n <= k || strcmp(host + n - k, suffix) != 0)
		return false;
	host[n - k] = '\0';
	return true;
}

static unsigned count_dots(const char *s)
{
	unsigned n = 0;

	for (; *s; s++)
		n += *s == '.';
	return n;
}

int name_canonical(char out[static WEFT_SERVICE_MAX + 1], const char *name, const char *ns,
		   const char *trust_domain)
{
	char host[WEFT_HOST_MAX + 1], full[WEFT_HOST_MAX + 1], suffix[WEFT_HOST_MAX + 8] = ".svc.";
	size_t n = strlen(suffix);

	if (fold_host(host, name) < 0)
		return -EINVAL;
	memcpy(full, host, sizeof(full));
	append(suffix, sizeof(suffix), &n,
	       trust_domain && *trust_domain ? trust_domain : WEFT_TRUST_DOMAIN_DEFAULT);
	if (cut_suffix(host, suffix) || cut_suffix(host, ".svc")) {
		/* Only "<service>.<namespace>" may stand before it. */
		if (count_dots(host) != 1)
			memcpy(host, full, sizeof(host));
	} else if (cut_suffix(host, ".weft") && count_dots(host) > 1) {
		memcpy(host, full, sizeof(host));
	}
	n = 0;
	append(out, WEFT_SERVICE_MAX + 1, &n, host);
	if (!count_dots(host)) {
		append(out, WEFT_SERVICE_MAX + 1, &n, ".");
		append(out, WEFT_SERVICE_MAX + 1, &n, ns && *ns ? ns : WEFT_NAMESPACE_DEFAULT);
	}
	return n <= WEFT_SERVICE_MAX ? 0 : -EINVAL;
}
