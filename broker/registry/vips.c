/* Virtual addresses. Each is a key in Redis, taken once for the mesh with SET NX; the hash of the service says where to
 * begin, so that an address that was lost comes back the same. The IPv6 address follows from the IPv4 one. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "registry/internal.h"
#include "telemetry/log.h"

#define VIP_PREFIX "weft:VIP:"
#define VIP_PROBES 4096
#define VIP_TRIES 16
#define VIP_UNUSED_S 86400

static uint32_t ipv4_of(const struct weft_addr *a)
{
	uint32_t n;

	memcpy(&n, a->ip + 12, 4);
	return ntohl(n);
}

static struct weft_addr address4(uint32_t ip)
{
	struct weft_addr a = { .ip = { [10] = 0xff, [11] = 0xff } };

	ip = htonl(ip);
	memcpy(a.ip + 12, &ip, 4);
	return a;
}

/* ff3e:7765:6674::/48 with the IPv4 address as its last four bytes. */
static struct weft_addr address6(const struct weft_addr *v4)
{
	struct weft_addr a = { .ip = { 0xff, 0x3e, 0x77, 0x65, 0x66, 0x74 } };

	memcpy(a.ip + 12, v4->ip + 12, 4);
	return a;
}

static void vip_free(void *item)
{
	struct vip *v = item;

	free(v->key);
	free(v->service);
	free(v);
}

/* The address in force of a service: of several the one whose text sorts first, on every host. */
static struct vip *vip_of(const struct registry *r, const char *service)
{
	for (size_t i = 0; i < r->vips.n; i++) {
		struct vip *v = r->vips.v[i];
		if (strcmp(v->service, service) == 0)
			return v;
	}
	return NULL;
}

static void put_in_force(struct registry *r, const char *service)
{
	const struct vip *v = vip_of(r, service);

	if (model_vip(r->model, service, v ? &v->v4 : NULL, v ? &v->v6 : NULL) < 0)
		log_error("registry: no memory for the address of %s", service);
	publish_bump(r, service);
	r->dirty_names = r->dirty_vips = r->dirty_file = true;
	publish_later(r, 0);
}

static void vip_remove(struct registry *r, const char *address)
{
	struct vip *v = strmap_remove(&r->vips, address);

	if (!v)
		return;
	put_in_force(r, v->service);
	vip_free(v);
}

static void vip_add(struct registry *r, const struct weft_addr *v4, const char *address,
		    const char *service)
{
	struct vip *v = strmap_find(&r->vips, address);

	if (v && strcmp(v->service, service) == 0)
		return;
	vip_remove(r, address);
	v = calloc(1, sizeof(*v));
	if (v)
		*v = (struct vip){ .key = strdup(address),
				   .service = strdup(service),
				   .v4 = *v4,
				   .v6 = address6(v4) };
	if (!v || !v->key || !v->service || strmap_add(&r->vips, v) < 0) {
		log_error("registry: no memory for the address of %s", service);
		if (v)
			vip_free(v);
		return;
	}
	put_in_force(r, service);
}

void vips_document(struct registry *r, const char *key, const char *json, size_t len)
{
	const char *address = key + strlen(VIP_PREFIX);
	char canonical[WEFT_ADDR_TEXT];
	struct weft_addr v4;

	if (addr_parse(&v4, address) < 0 || !addr_is_v4(&v4) ||
	    !cidr_contains(&r->vip_range, &v4) || strcmp(addr_format(&v4, canonical), address)) {
		if (json)
			log_warn("registry: %s is not an address of --vip-cidr, ignored", key);
		return;
	}
	json_t *doc = json ? json_loadb(json, len, 0, NULL) : NULL;
	const char *service = json_string_value(json_object_get(doc, "service"));
	if (service && *service && strlen(service) <= WEFT_SERVICE_MAX &&
	    !strpbrk(service, "\"\\ \t\r\n"))
		vip_add(r, &v4, address, service);
	else
		vip_remove(r, address);
	json_decref(doc);
}

/* --- asking for an address --- */

static void claim_next(struct claim *c);

static void claim_end(struct claim *c)
{
	struct registry *r = c->r;

	strmap_remove(&r->claims, c->key);
	free(c->key);
	free(c);
	if (!r->claims.n)
		publish_later(r, 0); /* REGISTER may wait for it */
}

static void on_owner(void *arg, const struct store_answer *a)
{
	struct claim *c = arg;
	char key[sizeof(VIP_PREFIX) + WEFT_ADDR_TEXT], text[WEFT_ADDR_TEXT];

	snprintf(key, sizeof(key), VIP_PREFIX "%s", addr_format(&c->v4, text));
	if (!a->error && !a->nil)
		vips_document(c->r, key, a->text, a->len);
	if (a->error || vip_of(c->r, c->key))
		claim_end(c);
	else
		claim_next(c);
}

static void on_claimed(void *arg, const struct store_answer *a)
{
	struct claim *c = arg;
	char text[WEFT_ADDR_TEXT], key[sizeof(VIP_PREFIX) + WEFT_ADDR_TEXT];

	addr_format(&c->v4, text);
	if (a->error) {
		if (a->error == -EREMOTE)
			log_warn("registry: no address for %s: %s", c->key, a->text);
		claim_end(c);
	} else if (a->nil) { /* another host was there first */
		snprintf(key, sizeof(key), VIP_PREFIX "%s", text);
		if (store_run(c->r->store, on_owner, c, "GETRANGE", key, "0", "1023", NULL) < 0)
			claim_end(c);
	} else {
		log_info("address %s is %s", text, c->key);
		vip_add(c->r, &c->v4, text, c->key);
		claim_end(c);
	}
}

/* The first address from the hash of the service on that no service is known to have. */
static bool choose(struct claim *c)
{
	const struct registry *r = c->r;
	unsigned host_bits = 128u - r->vip_range.bits;
	uint32_t size = (host_bits >= 32 ? UINT32_MAX : (1u << host_bits) - 1) -
			1; /* without first and last */
	struct weft_addr base = { 0 };
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	char text[WEFT_ADDR_TEXT];

	memcpy(base.ip, r->vip_range.ip, 16);
	for (const char *p = c->key; *p; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	for (uint64_t i = 0; i < VIP_PROBES && i < size; i++) {
		c->v4 = address4(ipv4_of(&base) + 1 + (uint32_t)((h + i) % size));
		if (!strmap_find(&r->vips, addr_format(&c->v4, text)))
			return true;
	}
	return false;
}

static void claim_next(struct claim *c)
{
	char key[sizeof(VIP_PREFIX) + WEFT_ADDR_TEXT], text[WEFT_ADDR_TEXT],
		json[WEFT_SERVICE_MAX + 32];

	if (++c->tries > VIP_TRIES || !choose(c)) {
		log_error("registry: no address left in --vip-cidr for %s", c->key);
		claim_end(c);
		return;
	}
	snprintf(key, sizeof(key), VIP_PREFIX "%s", addr_format(&c->v4, text));
	snprintf(json, sizeof(json), "{\"service\":\"%s\"}", c->key);
	if (store_run(c->r->store, on_claimed, c, "SET", key, json, "NX", NULL) < 0)
		claim_end(c);
}

struct missing {
	struct registry *r;
	char **v;
	size_t n, size;
};

static int find_missing(void *arg, const struct model_service *s)
{
	struct missing *m = arg;

	if (!s->exists || s->vip4.ip[10] || strmap_find(&m->r->claims, s->name))
		return 0;
	if (m->n == m->size) {
		size_t size = m->size ? m->size * 2 : 16;
		char **v = realloc(m->v, size * sizeof(*v));
		if (!v)
			return -ENOMEM;
		m->v = v;
		m->size = size;
	}
	m->v[m->n] = strdup(s->name);
	return m->v[m->n] ? (m->n++, 0) : -ENOMEM;
}

/* Takes `service` over. */
static void claim_start(struct registry *r, char *service)
{
	struct claim *c = calloc(1, sizeof(*c));

	if (c)
		*c = (struct claim){ .key = service, .r = r };
	if (!c || strmap_add(&r->claims, c) < 0) {
		free(service);
		free(c);
		return;
	}
	claim_next(c);
}

void vips_update(struct registry *r)
{
	struct missing m = { .r = r };
	enum store_state state = store_state(r->store);

	if (state != STORE_READING && state != STORE_LIVE)
		return; /* asked again after the next full read */
	model_each_service(r->model, find_missing, &m);
	for (size_t i = 0; i < m.n; i++)
		claim_start(r, m.v[i]);
	free(m.v);
}

static int mark_used(void *arg, const struct model_service *s)
{
	struct registry *r = arg;
	char text[WEFT_ADDR_TEXT];
	struct vip *v = s->exists ? strmap_find(&r->vips, addr_format(&s->vip4, text)) : NULL;

	if (v)
		v->seen = true;
	return 0;
}

void vips_sweep(struct registry *r)
{
	uint64_t now = registry_now();

	for (size_t i = 0; i < r->vips.n; i++)
		((struct vip *)r->vips.v[i])->seen = false;
	model_each_service(r->model, mark_used, r);
	for (size_t i = 0; i < r->vips.n; i++) {
		struct vip *v = r->vips.v[i];
		char key[sizeof(VIP_PREFIX) + WEFT_ADDR_TEXT];
		if (v->seen || !v->unused)
			v->unused = v->seen ? 0 : now;
		if (!v->unused || now - v->unused < VIP_UNUSED_S)
			continue;
		snprintf(key, sizeof(key), VIP_PREFIX "%s", v->key);
		store_run(r->store, NULL, NULL, "DEL", key, NULL);
		v->unused = now; /* it goes when Redis says that it is gone */
		store_fetch(r->store, key);
	}
}

static void claim_free(void *item)
{
	struct claim *c = item;

	free(c->key);
	free(c);
}

void vips_close(struct registry *r)
{
	strmap_clear(&r->claims, claim_free);
	strmap_clear(&r->vips, vip_free);
}
