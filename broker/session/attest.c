#include <ctype.h>
#include <stdarg.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "compile/model.h"
#include "session/internal.h"
#include "weft/env.h"
#include "weft/ident.h"

#define SHA256_FILE_MAX (256u << 20)

/* --- selectors --- */

/* The name of a peer's program: what the kernel shows, or at least what the process is called. */
static const char *program_of(const struct proc_facts *f)
{
	const char *slash = strrchr(f->exe, '/');

	return slash ? slash + 1 : f->exe[0] ? f->exe : f->comm;
}

static bool match_number(const char *value, unsigned long n)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", n);
	return strcmp(text, value) == 0;
}

static bool match_user(const char *value, uid_t uid)
{
	char buf[4096];
	struct passwd pw, *found = NULL;

	return getpwnam_r(value, &pw, buf, sizeof(buf), &found) == 0 && found &&
	       found->pw_uid == uid;
}

static bool match_group(const char *value, gid_t gid)
{
	char buf[16384];
	struct group gr, *found = NULL;

	return getgrnam_r(value, &gr, buf, sizeof(buf), &found) == 0 && found &&
	       found->gr_gid == gid;
}

/* Of the program that runs, through /proc: a file put at its path since does not count. */
static bool match_sha256(const char *value, pid_t pid)
{
	char path[64], hex[65];
	uint8_t chunk[65536], sum[32];
	struct stat st;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	ssize_t n = -1;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (md && fd >= 0 && fstat(fd, &st) == 0 && st.st_size <= SHA256_FILE_MAX &&
	    EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1)
		while ((n = read(fd, chunk, sizeof(chunk))) > 0)
			EVP_DigestUpdate(md, chunk, (size_t)n);
	bool ok = n == 0 && EVP_DigestFinal_ex(md, sum, NULL) == 1;
	for (size_t i = 0; i < sizeof(sum); i++)
		snprintf(hex + 2 * i, 3, "%02x", ok ? sum[i] : 0);
	EVP_MD_CTX_free(md);
	if (fd >= 0)
		close(fd);
	return ok && strcasecmp(hex, value) == 0;
}

static bool match_selector(const char *s, const struct proc_facts *f)
{
	static const char prefix[] = "unix:";
	const char *kind = s + sizeof(prefix) - 1;
	const char *colon = strncmp(s, prefix, sizeof(prefix) - 1) ? NULL : strchr(kind, ':');
	size_t n = colon ? (size_t)(colon - kind) : 0;

	if (n == 3 && memcmp(kind, "uid", n) == 0)
		return match_number(colon + 1, f->uid);
	if (n == 3 && memcmp(kind, "gid", n) == 0)
		return match_number(colon + 1, f->gid);
	if (n == 4 && memcmp(kind, "user", n) == 0)
		return match_user(colon + 1, f->uid);
	if (n == 5 && memcmp(kind, "group", n) == 0)
		return match_group(colon + 1, f->gid);
	if (n == 4 && memcmp(kind, "path", n) == 0)
		return f->exe[0] && strcmp(colon + 1, f->exe) == 0;
	if (n == 6 && memcmp(kind, "sha256", n) == 0)
		return match_sha256(colon + 1, f->pid);
	return false; /* a selector that is not known matches nobody */
}

void attest_selectors(const struct proc_facts *f, char out[static 4][96])
{
	snprintf(out[0], 96, "unix:uid:%lu", (unsigned long)f->uid);
	snprintf(out[1], 96, "unix:gid:%lu", (unsigned long)f->gid);
	snprintf(out[2], 96, "unix:path:%.80s", f->exe);
	out[3][0] = '\0';
}

/* --- labels --- */

static bool is_label_text(const char *s, size_t n, size_t max, const char *more)
{
	if (n > max)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr(more, s[i]))
			return false;
	return true;
}

static bool add_label(struct attestation *a, const char *key, const char *value)
{
	struct grant *g = &a->grant;

	if (g->n_labels == WEFT_LABELS_MAX)
		return false;
	a->labels[g->n_labels++] = (struct wire_label){ wire_str_of(key), wire_str_of(value) };
	return true;
}

/* WEFT_LABELS, "k=v,...". A label that is not understood could be one that a policy selects by: refuse all. */
static bool parse_labels(struct attestation *a, const struct wire_str *text)
{
	char *save = NULL;

	if (text->n >= sizeof(a->text))
		return false;
	memcpy(a->text, text->p, text->n + 1);
	for (char *p = strtok_r(a->text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		char *equals = strchr(p, '=');
		if (!equals)
			return false;
		*equals = '\0';
		if (equals == p || !is_label_text(p, strlen(p), WEFT_HOST_MAX, "-_./") ||
		    !is_label_text(equals + 1, strlen(equals + 1), WEFT_LABEL_MAX, "-_.") ||
		    !add_label(a, p, equals + 1))
			return false;
	}
	return true;
}

/* --- claims --- */

static void refuse(struct attestation *a, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void refuse(struct attestation *a, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(a->why, sizeof(a->why), format, ap);
	va_end(ap);
	a->service[0] = '\0';
	a->grant.n_labels = a->grant.n_ports = 0;
}

static void name_service(struct attestation *a, const char *name, const char *ns)
{
	snprintf(a->ns, sizeof(a->ns), "%s", *ns ? ns : WEFT_NAMESPACE_DEFAULT);
	snprintf(a->service, sizeof(a->service), "%s.%s", name, a->ns);
	snprintf(a->account, sizeof(a->account), "%s", name);
}

struct group_search {
	struct attestation *a;
	const struct registry *r;
	const struct proc_facts *f;
	bool exists, found;
};

static bool host_is_allowed(const struct model_group *g, const char *host)
{
	for (size_t i = 0; i < g->n_hosts; i++)
		if (strcmp(g->hosts[i], host) == 0)
			return true;
	return g->n_hosts == 0;
}

static void take_group(struct attestation *a, const struct model_group *g)
{
	size_t n = strcspn(g->service, ".");

	/* The group's texts live as long as the model is not changed: until this exchange is answered. */
	snprintf(a->service, sizeof(a->service), "%s", g->service);
	snprintf(a->ns, sizeof(a->ns), "%s", g->ns);
	snprintf(a->account, sizeof(a->account), "%s", g->service_account);
	if (!a->account[0])
		snprintf(a->account, sizeof(a->account), "%.*s", (int)n, g->service);
	for (size_t i = 0; i < g->n_labels; i++) {
		if (!a->version[0] && strcmp(g->labels[i].key.p, MODEL_LABEL_VERSION) == 0)
			snprintf(a->version, sizeof(a->version), "%s", g->labels[i].value.p);
		add_label(a, g->labels[i].key.p, g->labels[i].value.p);
	}
	for (size_t i = 0; !a->grant.n_ports && i < g->n_ports && i < WEFT_PORTS_MAX; i++)
		a->ports[i] = g->ports[i];
	if (!a->grant.n_ports)
		a->grant.n_ports = g->n_ports < WEFT_PORTS_MAX ? g->n_ports : WEFT_PORTS_MAX;
}

static int try_group(void *arg, const struct model_group *g)
{
	struct group_search *s = arg;

	s->exists = true;
	if (!g->n_selectors || !host_is_allowed(g, registry_host(s->r)))
		return 0;
	for (size_t i = 0; i < g->n_selectors; i++)
		if (!match_selector(g->selectors[i], s->f))
			return 0;
	s->found = true;
	take_group(s->a, g);
	return 1;
}

static void grant_open(struct attestation *a, const struct registry *r, const struct proc_facts *f)
{
	if (registry_is_strict(r))
		refuse(a, "attestation is strict and %s has no WorkloadGroup", a->service);
	else if (registry_is_taken(r, a->service, f->uid))
		refuse(a, "another uid of this host is %s", a->service);
}

static void attest_claim(struct attestation *a, struct registry *r, const struct proc_facts *f,
			 const char *text)
{
	struct weft_claim claim;
	const char *why = "";
	struct group_search s = { a, r, f, false, false };

	if (claim_parse(&claim, text, &why) < 0) {
		refuse(a, "WEFT_SERVICE: %s", why);
		return;
	}
	name_service(a, claim.name, claim.ns);
	snprintf(a->version, sizeof(a->version), "%s", claim.version);
	memcpy(a->ports, claim.ports, claim.n_ports * sizeof(*a->ports));
	a->grant.n_ports = claim.n_ports;
	model_groups(registry_answers(r), a->service, try_group, &s);
	if (s.exists && !s.found)
		refuse(a, "no WorkloadGroup of %s has selectors that match uid %lu, %s", a->service,
		       (unsigned long)f->uid, program_of(f));
	else if (!s.exists)
		grant_open(a, r, f);
}

/* "Python3.11" becomes "python3-11". False if nothing is left. */
static bool label_of_program(const struct proc_facts *f, char out[static WEFT_LABEL_MAX + 1])
{
	const char *p = program_of(f);
	size_t n = 0, len = strlen(p);
	static const char deleted[] = " (deleted)";

	if (len > sizeof(deleted) && strcmp(p + len - sizeof(deleted) + 1, deleted) == 0)
		len -= sizeof(deleted) - 1;
	for (size_t i = 0; i < len && n < WEFT_LABEL_MAX; i++) {
		bool plain = isalnum((unsigned char)p[i]) && (unsigned char)p[i] < 0x80;
		if (plain || n)
			out[n++] = plain ? (char)tolower((unsigned char)p[i]) : '-';
	}
	while (n && out[n - 1] == '-')
		n--;
	out[n] = '\0';
	return n;
}

static void attest_unnamed(struct attestation *a, struct registry *r, const struct proc_facts *f)
{
	char name[WEFT_LABEL_MAX + 1];
	struct group_search any = { a, r, f, false, false }, own = any;

	model_groups(registry_answers(r), NULL, try_group, &any);
	if (any.found)
		return;
	if (registry_is_strict(r) || !label_of_program(f, name)) {
		refuse(a, "no WorkloadGroup matches and WEFT_SERVICE is not set");
		return;
	}
	name_service(a, name, "");
	a->grant.own_host = true;
	model_groups(registry_answers(r), a->service, try_group, &own);
	if (own.exists)
		refuse(a, "%s has a WorkloadGroup that does not match, and WEFT_SERVICE is not set",
		       a->service);
	else
		grant_open(a, r, f);
}

void attest(struct attestation *a, struct registry *r, const struct proc_facts *f,
	    const struct wire_hello *hello)
{
	*a = (struct attestation){ 0 };
	a->grant = (struct grant){
		.service = a->service,
		.ns = a->ns,
		.account = a->account,
		.version = a->version,
		.why = a->why,
		.labels = a->labels,
		.ports = a->ports,
		.ceiling = hello->ceiling <= WEFT_MODE_ENFORCE ? (enum weft_mode)hello->ceiling
							       : WEFT_MODE_ENFORCE,
	};
	if (hello->service.n > WEFT_SPEC_MAX || hello->labels.n > WEFT_SPEC_MAX)
		refuse(a, "WEFT_SERVICE or WEFT_LABELS is too long");
	else if (hello->service.n)
		attest_claim(a, r, f, hello->service.p);
	else
		attest_unnamed(a, r, f);
	if (a->service[0] && !parse_labels(a, &hello->labels))
		refuse(a, "WEFT_LABELS is not a list of key=value, or is too long");
	if (!a->ns[0])
		snprintf(a->ns, sizeof(a->ns), "%s", WEFT_NAMESPACE_DEFAULT);
}
