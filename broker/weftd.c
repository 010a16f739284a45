/* weftd, the broker: one per host. Reads its options, opens the parts, runs the loop. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ev.h>

#include "admin/admin.h"
#include "ca/ca.h"
#include "dns/server.h"
#include "registry/registry.h"
#include "relay/keeper.h"
#include "relay/relay.h"
#include "session/session.h"
#include "store/target.h"
#include "telemetry/log.h"
#include "weft/env.h"

#define EXIT_USAGE 2

enum option_id {
	OPT_REDIS,
	OPT_SENTINEL,
	OPT_PASSWORD_FILE,
	OPT_SOCKET,
	OPT_ADMIN,
	OPT_DNS,
	OPT_STATE_DIR,
	OPT_ADVERTISE,
	OPT_TRUST_DOMAIN,
	OPT_VIP_CIDR,
	OPT_ZONE,
	OPT_ATTEST,
	OPT_SVID_TTL,
	OPT_CA,
	OPT_JOIN,
	OPT_LIBRARY,
	OPT_LOG,
	OPT_MAX,
	OPT_HELP = OPT_MAX,
	OPT_VERSION,
};

/* Every option is also a variable WEFTD_<NAME>; the command line wins. */
static const struct option_row {
	const char *name, *value, *preset, *text;
} rows[OPT_MAX] = {
	[OPT_REDIS] = { "redis", "URL", "",
			"redis://[user[:password]@]host[:port][/db] or unix:/path; default: a "
			"private redis-server" },
	[OPT_SENTINEL] = { "redis-sentinel", "NAME@HOST:PORT,...", "",
			   "Redis by its Sentinels (not supported by this release)" },
	[OPT_PASSWORD_FILE] = { "redis-password-file", "FILE", "",
				"password of Redis, first line" },
	[OPT_SOCKET] = { "socket", "PATH", "",
			 "Unix socket for guests; default /run/weft/weftd.sock, else "
			 "$XDG_RUNTIME_DIR/weft/weftd.sock" },
	[OPT_ADMIN] = { "admin", "ADDR:PORT|unix:PATH|off", ADMIN_DEFAULT, "read-only admin page" },
	[OPT_DNS] = { "dns", "ADDR:PORT", "",
		      "answer DNS for mesh names on this loopback address; default: off" },
	[OPT_STATE_DIR] = { "state-dir", "DIR", "",
			    "default /var/lib/weft, else $XDG_STATE_HOME/weft, else "
			    "~/.local/state/weft" },
	[OPT_ADVERTISE] = { "advertise", "IP|CIDR", "",
			    "where other hosts reach this one; default: source address of the "
			    "route to Redis" },
	[OPT_TRUST_DOMAIN] = { "trust-domain", "NAME", WEFT_TRUST_DOMAIN_DEFAULT,
			       "of the SPIFFE IDs" },
	[OPT_VIP_CIDR] = { "vip-cidr", "CIDR", WEFT_VIP4_CIDR, "virtual addresses" },
	[OPT_ZONE] = { "zone", "NAME", "", "where this host stands" },
	[OPT_ATTEST] = { "attest", "open|strict", "",
			 "default open with the private redis-server, else strict" },
	[OPT_SVID_TTL] = { "svid-ttl", "TIME", "24h", "life of a certificate: 90s, 30m, 24h, 7d" },
	[OPT_CA] = { "ca", NULL, "", "sign certificates; always so with the private redis-server" },
	[OPT_JOIN] = { "join", "TOKEN", "",
		       "join a mesh as a host (not supported by this release)" },
	[OPT_LIBRARY] = { "library", "PATH", "",
			  "libweft.so for the relays; default: beside weftd or in ../lib" },
	[OPT_LOG] = { "log", "error|warn|info|debug", "info", "lines on stderr" },
};

struct options {
	const char *text[OPT_MAX];
	char socket[PATH_MAX], state_dir[PATH_MAX];
	struct store_target target;
	bool embedded, strict, ca;
	long ttl_s;
	enum log_level level;
};

struct weftd {
	struct ev_loop *loop;
	struct options o;
	struct registry *registry;
	struct ca *ca;
	struct keeper *keeper;
	struct session *session;
	struct admin *admin;
	struct dns *dns;
	struct ev_signal term, interrupt;
};

/* --- options --- */

static _Noreturn void usage_error(const char *option, const char *value, const char *why)
{
	fprintf(stderr, "weftd: --%s%s%s: %s\n", option, value && *value ? " " : "",
		value ? value : "", why);
	exit(EXIT_USAGE);
}

static void help(void)
{
	char name[64];

	printf("Usage: weftd [option]...\nThe broker of weft: registry, policy, certificates and "
	       "liveness of one host.\n\n");
	for (int i = 0; i < OPT_MAX; i++) {
		snprintf(name, sizeof(name), "--%s%s%s", rows[i].name, rows[i].value ? " " : "",
			 rows[i].value ? rows[i].value : "");
		printf("  %-34s %s%s%s%s\n", name, rows[i].text, *rows[i].preset ? " (" : "",
		       rows[i].preset, *rows[i].preset ? ")" : "");
	}
	printf("  --help, --version\n\nEach option is also a variable: --state-dir is "
	       "WEFTD_STATE_DIR.\n");
}

static const char *from_environment(const char *option)
{
	char name[64];
	size_t n = (size_t)snprintf(name, sizeof(name), "WEFTD_%s", option);

	for (size_t i = 0; i < n; i++)
		name[i] = name[i] == '-' ? '_' : (char)toupper((unsigned char)name[i]);
	return getenv(name);
}

static void read_texts(struct options *o, int argc, char **argv)
{
	struct option table[OPT_MAX + 3] = { [OPT_HELP] = { "help", no_argument, NULL, OPT_HELP },
					     [OPT_VERSION] = { "version", no_argument, NULL,
							       OPT_VERSION } };
	int c;

	for (int i = 0; i < OPT_MAX; i++) {
		const char *text = from_environment(rows[i].name);
		o->text[i] = text ? text : rows[i].preset;
		table[i] =
			(struct option){ rows[i].name,
					 rows[i].value ? required_argument : no_argument, NULL, i };
	}
	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (c == OPT_HELP) {
			help();
			exit(0);
		}
		if (c == OPT_VERSION) {
			printf("weftd %s\n", WEFT_VERSION);
			exit(0);
		}
		if (c < 0 || c >= OPT_MAX)
			exit(EXIT_USAGE); /* getopt said why */
		o->text[c] = optarg ? optarg : "1";
	}
	if (optind < argc) {
		fprintf(stderr, "weftd: %s: no such argument, see --help\n", argv[optind]);
		exit(EXIT_USAGE);
	}
}

/* "90s", "30m", "24h", "7d". Seconds or -1. */
static long parse_time(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);
	long unit = *end == 's'   ? 1
		    : *end == 'm' ? 60
		    : *end == 'h' ? 3600
		    : *end == 'd' ? 86400
				  : 0;

	if (!isdigit((unsigned char)*text) || !unit || end[1] || n > CA_TTL_MAX_S)
		return -1;
	return n * unit;
}

static bool is_trust_domain(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_");

	return n && n <= WEFT_HOST_MAX && !text[n];
}

static void check_redis(struct options *o)
{
	const char *why = "", *url = o->text[OPT_REDIS], *file = o->text[OPT_PASSWORD_FILE];

	if (*o->text[OPT_SENTINEL])
		usage_error("redis-sentinel", "", "not supported by this release; use --redis");
	if (*o->text[OPT_JOIN])
		usage_error("join", "", "not supported by this release");
	o->embedded = !*url;
	if (*url && target_parse(&o->target, url, &why) < 0)
		usage_error("redis", "", why); /* the URL may hold a password */
	if (*file && o->embedded)
		usage_error("redis-password-file", file, "goes with --redis");
	int e = *file ? target_password_file(&o->target, file) : 0;
	if (e < 0)
		usage_error("redis-password-file", file,
			    e == -EINVAL ? "no password in the first line" : strerror(-e));
}

static bool vip_range_is_valid(const struct weft_cidr *c)
{
	struct weft_addr base = { 0 };

	memcpy(base.ip, c->ip, sizeof(base.ip));
	return addr_is_v4(&base) && c->bits >= 96 + 8 && c->bits <= 96 + 28;
}

static void check_values(struct options *o)
{
	const char *attest = o->text[OPT_ATTEST];
	int level = log_level_parse(o->text[OPT_LOG]);
	struct weft_cidr block;

	if (level < 0)
		usage_error("log", o->text[OPT_LOG], "must be one of error, warn, info, debug");
	o->level = (enum log_level)level;
	if (*attest && strcmp(attest, "open") && strcmp(attest, "strict"))
		usage_error("attest", attest, "must be open or strict");
	o->strict = *attest ? strcmp(attest, "strict") == 0 : !o->embedded;
	if (!is_trust_domain(o->text[OPT_TRUST_DOMAIN]))
		usage_error("trust-domain", o->text[OPT_TRUST_DOMAIN],
			    "may have only a-z, 0-9, '.', '-' and '_'");
	o->ttl_s = parse_time(o->text[OPT_SVID_TTL]);
	if (o->ttl_s < CA_TTL_MIN_S || o->ttl_s > CA_TTL_MAX_S)
		usage_error("svid-ttl", o->text[OPT_SVID_TTL], "must be a time from 10s to 90d");
	if (*o->text[OPT_ADVERTISE] && cidr_parse(&block, o->text[OPT_ADVERTISE]) < 0)
		usage_error("advertise", o->text[OPT_ADVERTISE],
			    "must be an address or a CIDR block");
	if (cidr_parse(&block, o->text[OPT_VIP_CIDR]) < 0 || !vip_range_is_valid(&block))
		usage_error("vip-cidr", o->text[OPT_VIP_CIDR],
			    "must be an IPv4 block between /8 and /28, such as " WEFT_VIP4_CIDR);
	if (strlen(o->text[OPT_ZONE]) > WEFT_LABEL_MAX)
		usage_error("zone", o->text[OPT_ZONE], "may have at most 63 bytes");
	o->ca = o->embedded || (*o->text[OPT_CA] && strcmp(o->text[OPT_CA], "0"));
}

/* The first of: the option; a folder of the system, if it may be written; a folder of the user. */
static void choose_path(const char *option, const char *given, const char *system, const char *base,
			const char *user, char out[static PATH_MAX])
{
	int n;

	if (*given)
		n = snprintf(out, PATH_MAX, "%s", given);
	else if (geteuid() == 0 || !base)
		n = snprintf(out, PATH_MAX, "%s", system);
	else
		n = snprintf(out, PATH_MAX, "%s/%s", base, user);
	if (n >= PATH_MAX || out[0] != '/')
		usage_error(option, given, "must be an absolute path");
}

static void choose_paths(struct options *o)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	choose_path("socket", o->text[OPT_SOCKET], WEFT_SOCKET_DEFAULT, getenv("XDG_RUNTIME_DIR"),
		    "weft/" WEFT_SOCKET_NAME, o->socket);
	choose_path("state-dir", o->text[OPT_STATE_DIR], "/var/lib/weft", state ? state : home,
		    state ? "weft" : ".local/state/weft", o->state_dir);
}

/* --- life --- */

static void on_signal(struct ev_loop *loop, struct ev_signal *w, int events)
{
	(void)events;
	log_info("signal %d: withdrawing the endpoints of this host", w->signum);
	ev_break(loop, EVBREAK_ALL);
}

static void on_ready(void *arg)
{
	struct weftd *d = arg;

	session_start(d->session);
	log_info("ready: %s", d->o.socket);
}

static void raise_limits(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max; /* two descriptors for each attached process */
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int failed(const char *what, int e, const char *why)
{
	log_error("%s: %s", what, *why ? why : strerror(-e));
	return e;
}

static int start(struct weftd *d)
{
	const char *why = "";
	const struct registry_options ro = {
		.state_dir = d->o.state_dir,
		.socket = d->o.socket,
		.trust_domain = d->o.text[OPT_TRUST_DOMAIN],
		.zone = d->o.text[OPT_ZONE],
		.vip_cidr = d->o.text[OPT_VIP_CIDR],
		.advertise = d->o.text[OPT_ADVERTISE],
		.target = d->o.embedded ? NULL : &d->o.target,
		.strict = d->o.strict,
		.ca = d->o.ca,
	};
	int e = registry_open(d->loop, &ro, on_ready, d, &d->registry, &why);
	if (e < 0)
		return failed(d->o.state_dir, e, why);
	if (d->o.ca)
		e = ca_open(&d->ca, d->o.state_dir, ro.trust_domain, &why);
	if (e < 0)
		return failed("certificate authority", e, why);
	const struct keeper_options ko = {
		.socket = d->o.socket,
		.library = *d->o.text[OPT_LIBRARY] ? d->o.text[OPT_LIBRARY] : NULL,
	};
	e = keeper_open(d->loop, &ko, &d->keeper);
	if (e < 0)
		return failed("relays", e, "");
	const struct session_options so = {
		.path = d->o.socket,
		.mode = 0666,
		.registry = d->registry,
		.ca = d->ca,
		.keeper = d->keeper,
		.ttl_s = d->o.ttl_s,
	};
	e = session_open(d->loop, &so, &d->session);
	if (e < 0)
		return failed(d->o.socket, e,
			      e == -EADDRINUSE ? "another weftd answers there" : "");
	e = admin_start(d->loop, d->o.text[OPT_ADMIN], d->registry, &d->admin, &why);
	if (e < 0)
		return failed("admin page", e, why);
	e = dns_start(d->loop, d->o.text[OPT_DNS], d->registry, &d->dns, &why);
	return e < 0 ? failed(d->o.text[OPT_DNS], e, why) : 0;
}

static void stop(struct weftd *d)
{
	dns_stop(d->dns);
	admin_stop(d->admin);
	if (d->session)
		registry_withdraw(d->registry);
	session_close(d->session);
	keeper_close(d->keeper);
	ca_free(d->ca);
	registry_close(d->registry);
}

int main(int argc, char **argv)
{
	static struct weftd d;

	if (argc == 2 && strcmp(argv[1], RELAY_OPTION) == 0)
		return relay_main();
	read_texts(&d.o, argc, argv);
	check_redis(&d.o);
	check_values(&d.o);
	choose_paths(&d.o);
	log_start(d.o.level);
	umask(022);
	raise_limits();
	signal(SIGPIPE, SIG_IGN);
	/* Not the default loop: that one reaps every child, and store/ waits for its own. */
	d.loop = ev_loop_new(EVFLAG_AUTO);
	if (!d.loop) {
		log_error("no event loop: %s", strerror(errno));
		return 1;
	}
	ev_signal_init(&d.term, on_signal, SIGTERM);
	ev_signal_init(&d.interrupt, on_signal, SIGINT);
	ev_signal_start(d.loop, &d.term);
	ev_signal_start(d.loop, &d.interrupt);
	log_info("weftd %s, state in %s, attestation %s", WEFT_VERSION, d.o.state_dir,
		 d.o.strict ? "strict" : "open");
	int e = start(&d);
	if (e == 0)
		ev_run(d.loop, 0);
	stop(&d);
	ev_loop_destroy(d.loop);
	return e < 0 ? 1 : 0;
}
