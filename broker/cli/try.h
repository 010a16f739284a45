/* weft try: one program run bare, bare again, with libweft.so loaded and idle, and meshed with itself; what differs.
 * try.c is the command, try_run.c runs, try_mesh.c is the mesh of its own, try_output.c and try_calls.c compare. */
#ifndef CLI_TRY_H
#define CLI_TRY_H

#include <jansson.h>
#include <limits.h>
#include <regex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "weft/trace.h"

enum try_run { TRY_BARE, TRY_AGAIN, TRY_PASS, TRY_MESH, TRY_RUNS };
enum try_part { TRY_PROGRAM, TRY_CLIENT, TRY_PARTS }; /* the client only with --client */
extern const char *const try_names[TRY_RUNS];         /* also of the folder of the run */
extern const char *const try_parts[TRY_PARTS];        /* how its files begin */

struct try_end {
	bool ran, late; /* late: ended by us, for the time was up */
	int status;     /* of waitpid() */
	unsigned left;  /* processes that it left behind, ended by us */
};

#define TRY_PATH (PATH_MAX + 256) /* of a file of a run */

struct trial {
	char dir[PATH_MAX]; /* of our own; a folder for each run, and for the mesh */
	char shim[4400], recorder[4400], path[4400];
	bool calls; /* the recorder is loaded, too */
	char **argv;
	const char *client;
	const char *input; /* a file, for standard input */
	int64_t timeout_ms;
	const struct cli_list *env;
	regex_t ignore[64];
	size_t ignore_n;
	struct try_end ends[TRY_RUNS][TRY_PARTS];
	pid_t weftd;
	json_t *differences; /* [{run, what, text: [line...]}] */
	json_t *notes;       /* [text...] */
};

/* --- what is found; both may come from any part --- */
json_t *try_differs(struct trial *t, enum try_run run, const char *what); /* its lines, borrowed */
void try_line(json_t *lines, const char *format, ...) __attribute__((format(printf, 2, 3)));
void try_note(struct trial *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* DIR/<run>/<name> */
void try_path(const struct trial *t, enum try_run run, const char *name, char out[TRY_PATH]);

/* --- try_run.c. Signals that end us are blocked from try_prepare() on, and taken while we wait. --- */
void try_prepare(void);
/* Until `pid` ends or `ms` are over (false). -1: wait `ms` anyway. Ends the program, after try_sweep(), on a signal. */
bool try_wait(pid_t pid, int64_t ms, int *status);
pid_t try_spawn(void (*child)(void *arg), void *arg); /* in a process group of its own */
/* Ends everything that descends from us but `spare`. How many there were. */
unsigned try_sweep(pid_t spare);
int try_execute(struct trial *t, enum try_run run); /* 0 or -errno */

/* --- try_mesh.c: 0, or -errno with `why` in words --- */
int try_mesh_start(struct trial *t, char *why, size_t size);
void try_mesh_stop(struct trial *t);
bool try_mesh_announces(const struct trial *t); /* is any server known by now */
/* The environment of a meshed process: variables set in this process. The client is a service of its own, for a server may
 * give up its user, and the first user of a service on a host is its owner. */
void try_mesh_environment(const struct trial *t, enum try_part part);
void try_mesh_tell(struct trial *t); /* what the shim had to say, as a note */

/* --- comparing one run with the two bare ones --- */
void try_compare_output(struct trial *t, enum try_run run);
int try_calls_make(const struct trial *t, enum try_run run); /* the recorder's file. 0 or -errno */
/* How many calls it has counted by now, more than 0; without a recorder always 1. */
uint64_t try_calls_made(const struct trial *t, enum try_run run);
void try_compare_calls(struct trial *t, enum try_run run);
struct try_connections {
	unsigned n, tls; /* as clients and servers */
};
struct try_connections try_count_connections(const struct trial *t, enum try_run run);

#endif
