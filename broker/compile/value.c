#include "compile/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "weft/ident.h"
#include "weft/limits.h"

#define MILLI UINT64_C(1000000) /* nanoseconds */
#define NANOS_MAX (VALUE_MILLIS_MAX * MILLI)

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Nanoseconds of the unit at *s, which is stepped over; 0 if there is none. */
static uint64_t take_unit(const char **s)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = { { "ms", 1000000 },
		      { "us", 1000 },
		      { "ns", 1 },
		      { "h", UINT64_C(3600000000000) },
		      { "m", UINT64_C(60000000000) },
		      { "s", 1000000000 } };

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t n = strlen(units[i].name);

		if (strncmp(*s, units[i].name, n) == 0) {
			*s += n;
			return units[i].ns;
		}
	}
	return 0;
}

/* One "1.5s" at *s. */
static int take_span(const char **s, uint64_t *ns)
{
	uint64_t whole = 0, part = 0, scale = 1, unit;
	unsigned digits = 0;

	for (; is_digit(**s) && digits < 14; (*s)++, digits++)
		whole = whole * 10 + (uint64_t)(**s - '0');
	if (**s == '.') {
		(*s)++;
		for (; is_digit(**s) && scale < 1000000; (*s)++, digits++, scale *= 10)
			part = part * 10 + (uint64_t)(**s - '0');
	}
	unit = take_unit(s);
	if (!digits || !unit || whole > NANOS_MAX / unit)
		return -EINVAL;
	*ns += whole * unit + part * (unit / scale) + part * (unit % scale) / scale;
	return 0;
}

int value_millis(const char *text, uint64_t *ms)
{
	uint64_t ns = 0;

	do {
		if (take_span(&text, &ns) < 0 || ns > NANOS_MAX)
			return -EINVAL;
	} while (*text);
	if (ns < MILLI || ns % MILLI)
		return -EINVAL;
	*ms = ns / MILLI;
	return 0;
}

/* [A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?, at most 63 bytes. */
static bool qualified(const char *s, size_t n)
{
	if (!n || n > WEFT_LABEL_MAX || !is_alnum(s[0]) || !is_alnum(s[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && s[i] != '-' && s[i] != '.' && s[i] != '_')
			return false;
	return true;
}

bool value_label_value(const char *s)
{
	return !*s || qualified(s, strlen(s));
}

bool value_label_key(const char *s)
{
	const char *slash = strchr(s, '/');
	char prefix[WEFT_HOST_MAX + 1];

	if (!slash)
		return qualified(s, strlen(s));
	if (slash - s > WEFT_HOST_MAX)
		return false;
	memcpy(prefix, s, (size_t)(slash - s));
	prefix[slash - s] = '\0';
	return value_name(prefix) && qualified(slash + 1, strlen(slash + 1));
}

bool value_name(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > WEFT_HOST_MAX)
		return false;
	for (;;) {
		n = strcspn(s, ".");
		if (!label_is_valid(s, n))
			return false;
		if (!s[n])
			return true;
		s += n + 1;
	}
}

int value_port(const char *s)
{
	size_t n = strspn(s, "0123456789");
	long port = n && n <= 5 && !s[n] && s[0] != '0' ? strtol(s, NULL, 10) : 0;

	return port >= 1 && port <= 65535 ? (int)port : -EINVAL;
}

bool value_spiffe(const char *s)
{
	struct weft_spiffe id;

	return spiffe_parse(&id, s, strlen(s)) == 0;
}

bool value_selector(const char *s)
{
	static const char *const numeric[] = { "unix:uid:", "unix:gid:" };
	static const char *const named[] = { "unix:user:", "unix:group:" };
	size_t n;

	for (size_t i = 0; i < 2; i++) {
		n = strlen(numeric[i]);
		if (strncmp(s, numeric[i], n) == 0)
			return s[n] && strlen(s + n) <= 10 && !s[n + strspn(s + n, "0123456789")];
		n = strlen(named[i]);
		if (strncmp(s, named[i], n) == 0)
			return qualified(s + n, strlen(s + n)) || s[n] == '_';
	}
	if (strncmp(s, "unix:path:", 10) == 0)
		return s[10] == '/';
	if (strncmp(s, "unix:sha256:", 12) == 0)
		return strlen(s + 12) == 64 && !s[12 + strspn(s + 12, "0123456789abcdef")];
	return false;
}

bool value_word_at(const char *words, int n, char out[static 64])
{
	size_t len;

	for (; n > 0; n--) {
		words += strcspn(words, "|");
		if (!*words++)
			return false;
	}
	words += *words == '~';
	len = strcspn(words, "|");
	if (!len || len > 63)
		return false;
	memcpy(out, words, len);
	out[len] = '\0';
	return true;
}

int value_word(const char *words, const char *text, bool *later)
{
	*later = false;
	for (int i = 0;; i++) {
		size_t mark = *words == '~', len = strcspn(words, "|") - mark;

		words += mark;
		if (len && strlen(text) == len && memcmp(words, text, len) == 0) {
			*later = mark;
			return i;
		}
		if (!words[len])
			return -1;
		words += len + 1;
	}
}
