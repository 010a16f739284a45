/* Listeners that weftd knows of. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "control/exchange.h"
#include "control/internal.h"
#include "sys/sys.h"
#include "telemetry/log.h"

#define SLOTS WEFT_PORTS_MAX

struct listener {
	int fd; /* plus one; 0: the slot is free */
	struct weft_addr addr;
	uint64_t cookie;
	bool v6only;
	bool shared;    /* somebody may hold it too: only the kernel knows when it is gone */
	uint64_t epoch; /* of the weftd that was told; 0: none */
};

static struct listener slots[SLOTS]; /* under the lock */
static _Atomic bool unanswered; /* weftd took too long over an announcement: an accept asks again */

static bool read_option(int fd, int level, int name, void *value, socklen_t size)
{
	return sys_call(SYS_getsockopt, fd, level, name, (long)value, (long)&size, 0) == 0;
}

/* What the kernel says of the socket. False for what is no TCP listener over IP. */
static bool describe(int fd, struct listener *l)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int v6only = 0;

	*l = (struct listener){ .fd = fd + 1 };
	if (sys_call(SYS_getsockname, fd, (long)&ss, (long)&len, 0, 0, 0) < 0 ||
	    addr_from_sockaddr(&l->addr, (struct sockaddr *)&ss, len) < 0 || !l->addr.port)
		return false;
	if (ss.ss_family == AF_INET6 &&
	    read_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)))
		l->v6only = v6only;
	return read_option(fd, SOL_SOCKET, SO_COOKIE, &l->cookie, sizeof(l->cookie));
}

static bool is_still_there(const struct listener *l)
{
	uint64_t cookie = 0;

	return read_option(l->fd - 1, SOL_SOCKET, SO_COOKIE, &cookie, sizeof(cookie)) &&
	       cookie == l->cookie;
}

/* WEFT_SERVICE names ports, or else means all. */
static bool is_announced(const struct attachment *a, uint16_t port)
{
	bool found = !a->n_ports;

	for (unsigned i = 0; i < a->n_ports && !found; i++)
		found = a->ports[i] == port;
	return found;
}

/* A full table means that this one is not announced again after a restart of weftd. */
static void remember(const struct listener *l)
{
	struct listener *slot = NULL;
	struct quiet q;

	control_lock(&q);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (slots[i].fd == l->fd) {
			slot = &slots[i];
			break;
		}
		if (!slots[i].fd && !slot)
			slot = &slots[i];
	}
	if (slot && (slot->fd != l->fd || slot->cookie != l->cookie))
		*slot = *l;
	control_unlock(&q);
}

static void mark(const struct listener *l, uint64_t epoch)
{
	struct quiet q;

	control_lock(&q);
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].fd == l->fd && slots[i].cookie == l->cookie)
			slots[i].epoch = epoch;
	control_unlock(&q);
}

/* Takes the listener on `fd` out of the table. */
static bool forget(int fd, struct listener *l)
{
	bool found = false;
	struct quiet q;

	control_lock(&q);
	for (unsigned i = 0; i < SLOTS && !found; i++) {
		if (slots[i].fd != fd + 1)
			continue;
		*l = slots[i];
		slots[i].fd = 0;
		found = true;
	}
	for (unsigned i = 0; i < SLOTS && found; i++) /* under another number */
		l->shared |= slots[i].fd && slots[i].cookie == l->cookie;
	control_unlock(&q);
	return found;
}

void listen_shared(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i].shared = true;
}

void mesh_listen_shared(int fd)
{
	struct quiet q;

	control_lock(&q);
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].fd == fd + 1)
			slots[i].shared = true;
	control_unlock(&q);
}

static int tell(enum wire_type type, const struct listener *l)
{
	static const uint8_t any[16];
	struct wire_listener in = {
		.address = { .p = addr_is_any(&l->addr) ? any : l->addr.ip, .n = 16 },
		.port = l->addr.port,
		.cookie = l->cookie,
		.v6only = l->v6only,
	};
	struct wire_registered out;
	struct exchange x = { .type = type,
			      .ask = &wire_schema_listener,
			      .in = &in,
			      .answer = &wire_schema_registered,
			      .out = &out,
			      .timeout_ms = type == WIRE_REGISTER ? WEFT_EXCHANGE_MS : REATTACH_MS,
			      /* A busy weftd must not cost the next listener its announcement. */
			      .aside = type == WIRE_DEREGISTER };
	int r = exchange(&x);

	if (r == -EACCES && x.code == ESRCH) {
		attach_lost();
		r = -ECONNREFUSED;
	}
	if (r == -EACCES)
		log_error("weftd does not announce port %u: %s", l->addr.port, x.text);
	exchange_close(&x);
	return r;
}

static void register_one(const struct listener *l, uint64_t epoch)
{
	struct listener gone;

	if (!is_still_there(l))
		forget(l->fd - 1, &gone); /* closed where no hook saw it */
	else if (tell(WIRE_REGISTER, l) != -ECONNREFUSED)
		mark(l, epoch);
	else
		atomic_store(&unanswered, true);
}

void listen_again(void)
{
	const struct attachment *a = attachment_get();
	uint64_t epoch = attach_epoch();
	struct listener copy[SLOTS];
	struct quiet q;

	if (!a || !a->service[0])
		return;
	atomic_store(&unanswered, false);
	control_lock(&q);
	memcpy(copy, slots, sizeof(copy));
	control_unlock(&q);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (!copy[i].fd || copy[i].epoch == epoch || !is_announced(a, copy[i].addr.port))
			continue;
		/* Announced is who can prove it: a refusal here shows at each accept. */
		(void)identity_refresh();
		register_one(&copy[i], epoch);
	}
}

void mesh_will_listen(void)
{
	KEEP_ERRNO;

	if (control_env.ceiling != WEFT_MODE_OFF && attach(control_env.claims) == 0 &&
	    attachment_get()->service[0])
		(void)identity_refresh();
}

enum mesh_accepts mesh_listen(int fd)
{
	KEEP_ERRNO;
	struct listener l;

	if (control_env.ceiling == WEFT_MODE_OFF || !describe(fd, &l))
		return MESH_PASSES;
	remember(&l);
	if (attach(control_env.claims) == 0)
		listen_again();
	return mesh_accepts();
}

void mesh_unlisten(int fd)
{
	KEEP_ERRNO;
	struct listener l;

	if (forget(fd, &l) && l.epoch && !l.shared)
		tell(WIRE_DEREGISTER, &l);
}

enum mesh_accepts mesh_accepts(void)
{
	KEEP_ERRNO;
	bool attached;

	if (control_env.ceiling == WEFT_MODE_OFF)
		return MESH_PASSES;
	attached = attach(control_env.claims) == 0;
	if (attached && atomic_load_explicit(&unanswered, memory_order_relaxed) &&
	    board_is_fresh() && exchange_is_due())
		listen_again();
	if (!attached && !board_get())
		return control_env.claims && !control_env.open ? MESH_REFUSES : MESH_PASSES;
	if (attached && attachment_get()->service[0])
		return control_mode_inbound(NULL) == WEFT_MODE_ENFORCE ? MESH_ADMITS : MESH_LOOKS;
	if (!control_env.claims || control_env.open ||
	    control_mode_inbound(NULL) != WEFT_MODE_ENFORCE)
		return MESH_PASSES;
	return MESH_REFUSES;
}

bool mesh_listens(const struct weft_addr *a)
{
	bool found = false;
	struct quiet q;

	control_lock(&q);
	for (unsigned i = 0; i < SLOTS && !found; i++)
		found = slots[i].fd && slots[i].addr.port == a->port &&
			(addr_is_any(&slots[i].addr) ||
			 memcmp(slots[i].addr.ip, a->ip, sizeof(a->ip)) == 0);
	control_unlock(&q);
	return found;
}
