/* Facts about processes, from the kernel. Nothing here blocks beyond reading /proc; nothing trusts what it reads. */
#ifndef HEALTH_PROC_H
#define HEALTH_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROC_EXE_MAX 512 /* longer paths are cut */

struct proc_facts {
	pid_t pid;
	uint64_t start; /* field 22 of /proc/<pid>/stat: clock ticks since boot */
	uid_t uid;      /* of the peer's credentials, filled in by the caller */
	gid_t gid;
	uint64_t netns; /* inode; 0 if it may not be read */
	char exe[PROC_EXE_MAX];
	char comm[32];
};

/* 0, -ESRCH if the process is gone (or another one has its pid: see proc_pidfd). */
int proc_read(struct proc_facts *f, pid_t pid);
/* Start time alone. 0 if there is no such process. */
uint64_t proc_start(pid_t pid);
pid_t proc_parent(pid_t pid); /* 0: none, or gone */
uint64_t proc_own_netns(void);

/* A pidfd (close-on-exec) of the peer of a connected Unix socket, or by pid where the kernel has no SO_PEERPIDFD.
 * >= 0 or -errno. */
int proc_peer_pidfd(int socket, pid_t pid);
int proc_pidfd(pid_t pid);
bool proc_pidfd_alive(int pidfd);

/* --- process families: one memfd that each member maps --- */

struct proc_family { /* identity of a memfd as /proc/<pid>/maps shows it */
	uint64_t dev, inode;
};

/* Creates the memfd (one page, no seals yet), close-on-exec. >= 0 or -errno. */
int proc_family_open(struct proc_family *id);
/* Asks the kernel whether any process still maps it writable. A dead family is sealed by the question: nobody can
 * join any more. True if somebody lives. */
bool proc_family_alive(int memfd);
/* The families whose memfd the process maps (it passed a HELLO, or is forked from one that did; exec drops them).
 * How many, at most `max`; -errno if its maps may not be read. */
int proc_families(pid_t pid, struct proc_family *out, int max);
#define PROC_FAMILIES_MAX 8
/* Calls fn for every process with readable maps that is in any family, until fn returns non-zero. After a restart. */
void proc_each_member(int (*fn)(void *arg, pid_t pid, const struct proc_family *f, int n),
		      void *arg);

/* Whether the process holds the socket with this inode among its descriptors. 1, 0 or -errno. */
int proc_holds_socket(pid_t pid, uint64_t inode);

#endif
