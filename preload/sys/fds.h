/* The open descriptors of this process, whoever opened them. Safe in a child of vfork. */
#ifndef SYS_FDS_H
#define SYS_FDS_H

struct fds_walk {
	int dir; /* of /proc/self/fd; -1: there is no /proc, every number is tried */
	int next, pos, len;
	char names[1024] __attribute__((aligned(8)));
};

void fds_start(struct fds_walk *w);
int fds_next(struct fds_walk *w); /* -1: no more; in no order */
void fds_end(struct fds_walk *w);

#endif
