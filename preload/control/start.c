#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "control/internal.h"
#include "telemetry/log.h"
#include "weft/env.h"

struct control_env control_env = { .ceiling = WEFT_MODE_OFF };

void errno_restore(const int *saved)
{
	errno = *saved;
}

/* Cut short where it does not fit: weftd says what is wrong with it. */
static void copy_text(char *out, size_t size, const char *text)
{
	size_t n = strnlen(text ? text : "", size - 1);

	memcpy(out, text ? text : "", n);
	out[n] = '\0';
}

static void read_mode(const char *text)
{
	int mode = text ? mode_parse(text) : WEFT_MODE_ENFORCE;

	if (mode < 0) {
		log_warn(WEFT_ENV_MODE
			 "='%.40s' is none of enforce, observe, off; taken as enforce",
			 text);
		mode = WEFT_MODE_ENFORCE;
	}
	control_env.ceiling = (enum weft_mode)mode;
}

/* "2s", "500ms", "1m". Milliseconds or -EINVAL. */
static int64_t parse_duration(const char *s, size_t n)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 } };
	int64_t value = 0;
	size_t digits = 0;

	for (; digits < n && digits < 7 && s[digits] >= '0' && s[digits] <= '9'; digits++)
		value = value * 10 + (s[digits] - '0');
	if (!digits)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strlen(units[i].unit) == n - digits &&
		    memcmp(s + digits, units[i].unit, n - digits) == 0)
			return value * units[i].ms;
	return -EINVAL;
}

/* wait:<duration> and closed or open, in any order. */
static int parse_no_broker(const char *text, int64_t *wait_ms, bool *open)
{
	for (const char *s = text;; s++) {
		size_t n = strcspn(s, ",");

		if (n > 5 && memcmp(s, "wait:", 5) == 0) {
			*wait_ms = parse_duration(s + 5, n - 5);
			if (*wait_ms < 0)
				return -EINVAL;
		} else if (n == 4 && memcmp(s, "open", 4) == 0) {
			*open = true;
		} else if (n == 6 && memcmp(s, "closed", 6) == 0) {
			*open = false;
		} else {
			return -EINVAL;
		}
		s += n;
		if (!*s)
			return 0;
	}
}

static void read_no_broker(const char *text)
{
	int64_t wait_ms = WEFT_EXCHANGE_MS;
	bool open = false;

	if (text && parse_no_broker(text, &wait_ms, &open) < 0) {
		log_warn(WEFT_ENV_NO_BROKER "='%.40s' is not like 'wait:2s,closed', which is taken",
			 text);
		wait_ms = WEFT_EXCHANGE_MS;
		open = false;
	}
	control_env.wait_ms = wait_ms;
	control_env.open = open;
}

static void add_socket(const char *dir, const char *rest)
{
	char *path = control_env.socket[control_env.n_sockets];
	int n = snprintf(path, SOCKET_PATH_MAX + 1, "%s%s", dir, rest);

	if (dir[0] == '/' && n <= SOCKET_PATH_MAX)
		control_env.n_sockets++;
	else
		log_warn("'%.60s%s' is no absolute path of at most %d bytes; not used as socket",
			 dir, rest, SOCKET_PATH_MAX);
}

static void read_socket(const char *path, const char *runtime_dir)
{
	if (path && *path) {
		add_socket(path, "");
		return;
	}
	add_socket(WEFT_SOCKET_DEFAULT, "");
	if (runtime_dir && *runtime_dir)
		add_socket(runtime_dir, "/weft/" WEFT_SOCKET_NAME);
}

static void read_service(const char *text)
{
	struct weft_claim claim = { .n_ports = 0 };
	const char *why = "";

	control_env.claims = text && *text;
	copy_text(control_env.service, sizeof(control_env.service), text);
	if (control_env.claims && claim_parse(&claim, control_env.service, &why) < 0)
		log_warn(WEFT_ENV_SERVICE "='%.80s': %s", text, why);
	copy_text(control_env.ns, sizeof(control_env.ns),
		  claim.ns[0] ? claim.ns : WEFT_NAMESPACE_DEFAULT);
}

/* Everything is copied: a guest may write over its environment and its arguments. */
void control_start(void)
{
	KEEP_ERRNO;

	if (getauxval(AT_SECURE))
		return;
	report_start();
	read_mode(getenv(WEFT_ENV_MODE));
	read_no_broker(getenv(WEFT_ENV_NO_BROKER));
	read_socket(getenv(WEFT_ENV_SOCKET), getenv("XDG_RUNTIME_DIR"));
	read_service(getenv(WEFT_ENV_SERVICE));
	copy_text(control_env.labels, sizeof(control_env.labels), getenv(WEFT_ENV_LABELS));
	copy_text(control_env.program, sizeof(control_env.program), program_invocation_short_name);
}

static enum weft_mode under_ceiling(uint32_t word)
{
	if (word > WEFT_MODE_ENFORCE)
		word = WEFT_MODE_ENFORCE;
	return word < control_env.ceiling ? (enum weft_mode)word : control_env.ceiling;
}

enum weft_mode control_mode(void)
{
	const struct weft_identity_mem *mem = attach_memory(NULL);
	const struct weft_board *board = board_get();
	uint32_t word = WEFT_MODE_OFF;

	if (mem)
		word = atomic_load_explicit(&mem->mode, memory_order_relaxed);
	else if (board)
		word = atomic_load_explicit(&board->mode, memory_order_relaxed);
	return under_ceiling(word);
}

enum weft_mode control_mode_inbound(bool *settling)
{
	const struct weft_identity_mem *mem = attach_memory(NULL);
	uint32_t word = mem ? atomic_load_explicit(&mem->inbound, memory_order_relaxed) : 0;

	if (settling)
		*settling = word & WEFT_INBOUND_SETTLING;
	word &= ~WEFT_INBOUND_SETTLING;
	return word ? under_ceiling(word - 1) : control_mode();
}

const char *mesh_claim(void)
{
	return control_env.service;
}

void control_exit(void)
{
	keypair_wipe();
}
