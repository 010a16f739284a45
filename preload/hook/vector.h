/* The program's buffers, as far as they can be touched: where the kernel would stop with EFAULT, the call stops as well. */
#ifndef HOOK_VECTOR_H
#define HOOK_VECTOR_H

#include "conduit/direct.h"

struct vector {
	const struct iovec *iov;
	int n;
	bool cut;         /* something that cannot be touched follows */
	struct iovec one; /* what `iov` may point to */
};

/* `write`: the buffers are to be filled. 0; -EINVAL, -EFAULT where the kernel says so before it looks at the socket. */
int vector_one(struct vector *v, const void *buf, size_t n, bool write);
int vector_many(struct vector *v, const struct iovec *iov, int n, bool write);

/* direct_recv() and direct_send(). CONDUIT_PASS also where the number is not the connection's any more. */
ssize_t vector_recv(struct conn *c, int fd, const struct vector *v, int flags);
ssize_t vector_send(struct conn *c, int fd, const struct vector *v, int flags);

#endif
