/* The message is told short when the buffer is full, and nothing that write() took is lost at close. */
#include "probe.h"

static void fill_until_full(int buffers)
{
	struct pair p;
	static uint8_t block[30000], in[8192];
	uint64_t sent = HASH_START, got = HASH_START;
	size_t out = 0, back = 0;
	ssize_t r;

	pair_open_sized(&p, buffers);
	set_nonblock(p.client, true);
	fill(block, sizeof(block), 3);
	while ((r = send(p.client, block, sizeof(block), MSG_NOSIGNAL)) > 0) {
		sent = hash(sent, block, (size_t)r);
		out += (size_t)r;
	}
	printf("full: %s\n", r < 0 ? strerrorname_np(errno) : "0");
	printf("now %s\n", events_text(ready_now(p.client)));
	MUST(close(p.client) == 0);
	while ((r = recv(p.server, in, sizeof(in), 0)) > 0) {
		got = hash(got, in, (size_t)r);
		back += (size_t)r;
	}
	printf("end %zd; all came %d; the same %d\n", r, out == back, sent == got);
	p.client = p.listener;
	MUST(close(p.server) == 0);
	MUST(close(p.listener) == 0);
}

int main(void)
{
	probe_start();
	fill_until_full(0);
	fill_until_full(16384);
	fill_until_full(4608);
	return 0;
}
