#include "cli/coverage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/columns.h"
#include "cli/target.h"
#include "health/proc.h"
#include "health/scan.h"
#include "weft/tally.h"

static const char *str(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));

	return s ? s : "";
}

static long long num(const json_t *o, const char *field)
{
	return json_integer_value(json_object_get(o, field));
}

/* --- what processes told --- */

/* What to do about it; NULL: nothing is wrong with it. */
static const char *const helps[WEFT_TALLY_MAX] = {
	[WEFT_TALLY_DIALLED_PLAIN] = "let that server enforce, or start it under weft",
	[WEFT_TALLY_ADMITTED_PLAIN] = "start the client under weft; STRICT would refuse it",
	[WEFT_TALLY_ADMITTED_TLS] =
		"encrypted, but the client is unknown: start it under weft; STRICT would refuse it",
	[WEFT_TALLY_NO_IDENTITY] = "weft identity says why it has no certificate",
	[WEFT_TALLY_PLAIN] = "start what listens there under weft, or name it in a ServiceEntry",
	[WEFT_TALLY_UDP] =
		"weft carries TCP only: use the protocol over TCP, or encrypt it otherwise",
	[WEFT_TALLY_WOULD_MESH] = "",
	[WEFT_TALLY_WOULD_ADMIT] = "",
	[WEFT_TALLY_WOULD_REFUSE] =
		"allow it by policy or start the client under weft, before enforce",
};

static bool is_observed(enum weft_tally k)
{
	return k == WEFT_TALLY_WOULD_MESH || k == WEFT_TALLY_WOULD_ADMIT ||
	       k == WEFT_TALLY_WOULD_REFUSE;
}

static enum weft_tally kind_of(const char *word)
{
	enum weft_tally k = 0;

	while (k < WEFT_TALLY_MAX && strcmp(tally_word(k), word) != 0)
		k++;
	return k;
}

static void add_seen(json_t *out, const json_t *process)
{
	json_t *row, *list;
	size_t i;

	json_array_foreach(json_object_get(process, "seen"), i, row)
	{
		enum weft_tally k = kind_of(str(row, "what"));

		if (k == WEFT_TALLY_MAX || !helps[k])
			continue;
		list = json_object_get(out, is_observed(k) ? "observed" : "passed");
		json_object_set_new(row, "why", json_string(tally_text(k)));
		json_object_set_new(row, "help", json_string(helps[k]));
		json_object_set(row, "service", json_object_get(process, "service"));
		json_object_set(row, "exe", json_object_get(process, "exe"));
		json_object_set(row, "pid", json_object_get(process, "pid"));
		json_array_append(list, row);
	}
}

/* --- what the kernel shows --- */

enum outside { /* why a listening program is not in the mesh; the order is that of the questions */
	       OUTSIDE_UNSEEN,
	       OUTSIDE_STATIC,
	       OUTSIDE_MUSL,
	       OUTSIDE_FOREIGN,
	       OUTSIDE_SETUID,
	       OUTSIDE_NOT_LOADED,
	       OUTSIDE_OFF,
	       OUTSIDE_SECCOMP,
	       OUTSIDE_RAW,
	       OUTSIDE_NO_IDENTITY,
	       OUTSIDE_MAX,
};
static const struct {
	const char *word, *why, *help;
} outsides[OUTSIDE_MAX] = {
	[OUTSIDE_UNSEEN] = { "unseen", "this user may not look into it", "ask again as root" },
	[OUTSIDE_STATIC] = { "static", "statically linked: no library can be loaded into it",
			     "use a dynamically linked build; Go: CGO_ENABLED=1 and "
			     "-linkmode=external" },
	[OUTSIDE_MUSL] = { "musl", "linked with musl, weft needs glibc", "use a build for glibc" },
	[OUTSIDE_FOREIGN] = { "foreign", "a 32-bit program, or one of another machine",
			      "use a 64-bit build" },
	[OUTSIDE_SETUID] = { "setuid", "setuid, setgid or with capabilities: LD_PRELOAD is ignored",
			     "start it with the rights it needs, not by its file (systemd: "
			     "AmbientCapabilities)" },
	[OUTSIDE_NOT_LOADED] = { "notLoaded", "started without weft",
				 "start it by weft run --service NAME, or with LD_PRELOAD" },
	[OUTSIDE_OFF] = { "off", "started with WEFT_MODE=off", "start it again without WEFT_MODE" },
	[OUTSIDE_SECCOMP] = { "seccomp", "its seccomp filter came before weft could attach",
			      "allow socket, connect and recvmsg on Unix sockets, or set "
			      "WEFT_SERVICE so that it "
			      "attaches when it listens" },
	[OUTSIDE_RAW] = { "raw",
			  "this weftd was not told of it: raw system calls, another WEFT_SOCKET, "
			  "or "
			  "weftd was away",
			  "start it with WEFT_SOCKET of this weftd; raw system calls cannot be "
			  "meshed" },
	[OUTSIDE_NO_IDENTITY] = { "noIdentity", "it has no service",
				  "set WEFT_SERVICE; weft identity says why" },
};

static enum outside of_target(enum target_fault f)
{
	static const enum outside table[TARGET_FAULTS] = {
		[TARGET_STATIC] = OUTSIDE_STATIC,   [TARGET_MUSL] = OUTSIDE_MUSL,
		[TARGET_FOREIGN] = OUTSIDE_FOREIGN, [TARGET_SETUID] = OUTSIDE_SETUID,
		[TARGET_GO] = OUTSIDE_RAW,
	};

	return table[f] ? table[f] : OUTSIDE_NOT_LOADED;
}

static enum outside without_shim(pid_t pid)
{
	char exe[64], path[64];
	enum outside o;

	snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
	o = of_target(target_check(exe, path, sizeof(path)));
	return o == OUTSIDE_NOT_LOADED && scan_is_secure(pid) == 1 ? OUTSIDE_SETUID : o;
}

/* The process of weftd's list that has one of these families. */
static const json_t *process_of(const json_t *processes, const struct proc_family *f, int n)
{
	const json_t *p;
	size_t i;

	json_array_foreach(processes, i,
			   p) for (int k = 0; k < n;
				   k++) if (num(p, "family") == (long long)f[k].inode) return p;
	return NULL;
}

struct walk {
	json_t *out;
	const json_t *processes, *endpoints;
};

static bool is_endpoint(const struct walk *w, long long pid, uint16_t port)
{
	char tail[16];
	const json_t *e;
	size_t i;

	snprintf(tail, sizeof(tail), ":%u", port);
	json_array_foreach(w->endpoints, i, e)
	{
		const char *colon = strrchr(str(e, "address"), ':');

		if (num(e, "pid") == pid && colon && strcmp(colon, tail) == 0)
			return true;
	}
	return false;
}

/* OUTSIDE_MAX: it is in the mesh. */
static enum outside judge(const struct walk *w, const struct diag_listener *l, pid_t pid)
{
	struct proc_family f[PROC_FAMILIES_MAX];
	int shim = pid ? scan_has_shim(pid) : -1, n;
	const json_t *p;

	if (shim < 0)
		return OUTSIDE_UNSEEN;
	if (!shim)
		return without_shim(pid);
	n = proc_families(pid, f, PROC_FAMILIES_MAX);
	p = n > 0 ? process_of(w->processes, f, n) : NULL;
	if (!p && scan_is_off(pid) == 1)
		return OUTSIDE_OFF;
	if (!p)
		return scan_has_seccomp(pid) == 1 ? OUTSIDE_SECCOMP : OUTSIDE_RAW;
	if (!*str(p, "service"))
		return OUTSIDE_NO_IDENTITY;
	return is_endpoint(w, num(p, "pid"), l->address.port) ? OUTSIDE_MAX : OUTSIDE_RAW;
}

static bool is_weftd(pid_t pid)
{
	struct proc_facts f;

	return pid && (proc_read(&f, pid) < 0 || strcmp(f.comm, "weftd") == 0);
}

static int add_listener(void *arg, const struct diag_listener *l, pid_t pid)
{
	const struct walk *w = arg;
	enum outside o = is_weftd(pid) ? OUTSIDE_MAX : judge(w, l, pid);
	struct proc_facts f = { .pid = pid };
	char address[WEFT_ADDR_TEXT];

	if (o == OUTSIDE_MAX)
		return 0;
	if (pid)
		proc_read(&f, pid);
	json_array_append_new(json_object_get(w->out, "outside"),
			      json_pack("{s:i, s:i, s:s, s:s, s:s, s:s, s:s}", "pid", (int)pid,
					"uid", (int)l->uid, "exe",
					columns_plain(f.exe[0] ? f.exe : f.comm), "address",
					addr_format(&l->address, address), "what", outsides[o].word,
					"why", outsides[o].why, "help", outsides[o].help));
	return 0;
}

json_t *coverage_collect(char why[static CLIENT_WHY])
{
	json_t *out = json_pack("{s:[], s:[], s:[]}", "passed", "observed", "outside");
	json_t *processes, *endpoints = NULL, *p;
	struct walk w = { .out = out };
	size_t i;

	if (client_list(cli_admin, "coverage", "", &processes, why) < 0 ||
	    client_list(cli_admin, "endpoints", "", &endpoints, why) < 0) {
		json_decref(out);
		return NULL;
	}
	json_array_foreach(processes, i, p)
	{
		add_seen(out, p);
		json_object_del(p, "seen");
	}
	w.processes = processes;
	w.endpoints = endpoints;
	scan_listeners(add_listener, &w);
	json_decref(endpoints);
	json_object_set_new(out, "processes", processes);
	return out;
}

/* --- for people --- */

static void print_processes(const json_t *list)
{
	struct columns *c =
		columns_new("PID|SERVICE|MODE|DIALLED|ADMITTED|IN THE CLEAR|REFUSED|PROGRAM");
	const json_t *p, *t;
	size_t i;

	json_array_foreach(list, i, p)
	{
		t = json_object_get(p, "totals");
		if (num(p, "pid"))
			columns_cell(c, "%lld", num(p, "pid"));
		else
			columns_cell(c, "gone");
		columns_cell(c, "%s", *str(p, "service") ? str(p, "service") : "-");
		columns_cell(c, "%s", *str(p, "mode") ? str(p, "mode") : "-");
		columns_cell(c, "%lld", num(t, "dialled"));
		columns_cell(c, "%lld", num(t, "admitted"));
		columns_cell(c, "%lld",
			     num(t, "dialledPlain") + num(t, "admittedPlain") +
				     num(t, "admittedOwnTls") + num(t, "noIdentity") +
				     num(t, "plain") + num(t, "udp"));
		columns_cell(c, "%lld", num(t, "refused") + num(t, "dialRefused"));
		columns_cell(c, "%s", str(p, "exe"));
	}
	columns_print(c, stdout);
}

static void print_seen(const char *title, const json_t *list)
{
	struct columns *c = columns_new("PID|SERVICE|ADDRESS|COUNT|WHY");
	const json_t *row;
	size_t i;

	if (json_array_size(list))
		printf("\n%s\n", title);
	json_array_foreach(list, i, row)
	{
		if (num(row, "pid"))
			columns_cell(c, "%lld", num(row, "pid"));
		else
			columns_cell(c, "gone");
		columns_cell(c, "%s", *str(row, "service") ? str(row, "service") : "-");
		columns_cell(c, "%s", str(row, "address"));
		columns_cell(c, "%lld", num(row, "count"));
		columns_cell(c, "%s%s%s", str(row, "why"), *str(row, "reason") ? ": " : "",
			     str(row, "reason"));
	}
	columns_print(c, stdout);
}

static void print_outside(const json_t *list)
{
	struct columns *c = columns_new("PID|ADDRESS|PROGRAM|WHY");
	const json_t *row;
	size_t i;

	if (json_array_size(list))
		puts("\nListening on this host, outside the mesh:");
	json_array_foreach(list, i, row)
	{
		columns_cell(c, "%lld", num(row, "pid"));
		columns_cell(c, "%s", str(row, "address"));
		columns_cell(c, "%s", str(row, "exe"));
		columns_cell(c, "%s", str(row, "why"));
	}
	columns_print(c, stdout);
}

void coverage_print(const json_t *coverage)
{
	const json_t *processes = json_object_get(coverage, "processes");

	if (json_array_size(processes))
		print_processes(processes);
	else
		puts("No process is attached.");
	print_seen("Not protected by mutual TLS:", json_object_get(coverage, "passed"));
	print_seen("Observed:", json_object_get(coverage, "observed"));
	print_outside(json_object_get(coverage, "outside"));
	puts("\nweft check says what to do about each.");
}
