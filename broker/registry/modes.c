/* The mode of each process, and how it changes while connections are being made.
 *
 * A server takes a mesh client's handshake in every mode, so only plaintext to a STRICT server can fail. Therefore who
 * tolerates changes at once, and who demands waits until the others have seen it:
 *   to enforce    announced as encrypting, and dials so, at once; refuses what it accepts SETTLE_S later
 *   from enforce  refuses nothing, and is announced as not encrypting, at once; dials in the clear SETTLE_S later
 * A server that speaks first looks for a ClientHello before it does while its announcement has a reader who may come with
 * one: in the first case until it enforces, in the second for TRUST_S, for those who have not heard. */
#include "registry/internal.h"

#define SETTLE_S \
	0.7 /* an announcement reaches the next decision anywhere within 200 ms; a mode is in force after 1 s */
#define TRUST_S 2.0
#define TURN_S 0.05

static void write_inbound(struct process *p, enum weft_mode mode)
{
	uint32_t word = 1 + (uint32_t)mode;

	if ((p->trust || p->settle) && mode != WEFT_MODE_ENFORCE)
		word |= WEFT_INBOUND_SETTLING;
	atomic_store_explicit(&p->memory->inbound, word, memory_order_release);
}

static enum weft_mode inbound_word(const struct process *p)
{
	uint32_t word = atomic_load_explicit(&p->memory->inbound, memory_order_relaxed) & 0xff;

	return (enum weft_mode)(
		word ? word - 1 : atomic_load_explicit(&p->memory->mode, memory_order_relaxed));
}

static void write_outbound(_Atomic uint32_t *word, enum weft_mode mode)
{
	atomic_store_explicit(word, (uint32_t)mode, memory_order_release);
}

/* Whether a change of `word` to `to` is one that waits. */
static bool is_held(const _Atomic uint32_t *word, enum weft_mode to)
{
	return to != WEFT_MODE_ENFORCE &&
	       atomic_load_explicit(word, memory_order_relaxed) == WEFT_MODE_ENFORCE;
}

static void change(struct process *p, enum weft_mode to, double now)
{
	bool changed = p->mode != to || (inbound_word(p) != to && !p->settle);

	p->mode = to;
	if (!changed)
		return;
	p->settle = now + SETTLE_S;
	if (to == WEFT_MODE_ENFORCE) {
		write_inbound(p, inbound_word(p));
		write_outbound(&p->memory->mode, to);
		return;
	}
	if (inbound_word(p) == WEFT_MODE_ENFORCE)
		p->trust = now + TRUST_S;
	write_inbound(p, to);
	if (!is_held(&p->memory->mode, to))
		write_outbound(&p->memory->mode, to);
}

static bool settle(struct process *p, double now)
{
	if (p->trust && p->trust <= now) {
		p->trust = 0;
		write_inbound(p, inbound_word(p));
	}
	if (p->settle && p->settle <= now) {
		p->settle = 0;
		write_outbound(&p->memory->mode, p->mode);
		write_inbound(p, p->mode);
	}
	return p->settle || p->trust;
}

static void on_turn(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct registry *r = t->data;
	double now = ev_now(loop);
	bool more = false;

	(void)events;
	for (size_t i = 0; i < r->n_processes; i++)
		more = settle(r->processes[i], now) || more;
	if (r->modes_settle && r->modes_settle <= now) {
		r->modes_settle = 0;
		write_outbound(&r->board->mode, model_mode(r->model, NULL));
	}
	if (!more && !r->modes_settle)
		ev_timer_stop(loop, t);
}

void modes_update(struct registry *r)
{
	enum weft_mode mesh = model_mode(r->model, NULL);
	double now = ev_now(r->loop);

	for (size_t i = 0; i < r->n_processes; i++) {
		struct process *p = r->processes[i];

		change(p, p->service[0] ? model_mode(r->model, p->service) : mesh, now);
	}
	if (!is_held(&r->board->mode, mesh))
		write_outbound(&r->board->mode, mesh);
	else if (!r->modes_settle)
		r->modes_settle = now + SETTLE_S;
	ev_timer_again(r->loop, &r->modes);
}

/* A client that is born while the mesh leaves enforce waits as the others do. */
void modes_attach(struct process *p)
{
	struct registry *r = p->registry;

	if (r->modes_settle && p->mode != WEFT_MODE_ENFORCE) {
		p->settle = r->modes_settle;
		write_outbound(&p->memory->mode, WEFT_MODE_ENFORCE);
	} else {
		write_outbound(&p->memory->mode, p->mode);
	}
	write_inbound(p, p->mode);
}

void modes_open(struct registry *r)
{
	ev_init(&r->modes, on_turn);
	r->modes.repeat = TURN_S;
	r->modes.data = r;
}

void modes_close(struct registry *r)
{
	ev_timer_stop(r->loop, &r->modes);
}
