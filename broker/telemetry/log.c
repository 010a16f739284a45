#include "telemetry/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static enum log_level log_level = LOG_LEVEL_INFO;

int log_level_parse(const char *text)
{
	for (int i = 0; i <= LOG_LEVEL_DEBUG; i++)
		if (strcmp(text, level_names[i]) == 0)
			return i;
	return -EINVAL;
}

void log_start(enum log_level level)
{
	log_level = level;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[LOG_LINE_MAX];
	struct timespec now;
	struct tm tm;
	va_list ap;

	if (level > log_level)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n,
			      ".%03ldZ weftd %s: ", now.tv_nsec / 1000000, level_names[level]);
	size_t text = n;
	va_start(ap, format);
	int r = vsnprintf(line + n, sizeof(line) - n - 1, format, ap);
	va_end(ap);
	if (r < 0)
		return;
	n += (size_t)r < sizeof(line) - n - 1 ? (size_t)r : sizeof(line) - n - 2;
	for (size_t i = text; i < n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	/* Nobody to tell if stderr is gone. */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

bool log_allowed(struct log_limit *l, unsigned burst)
{
	uint64_t second = (uint64_t)time(NULL);

	if (l->second != second) {
		if (l->dropped)
			log_warn("%u similar lines left out", l->dropped);
		*l = (struct log_limit){ .second = second };
	}
	if (l->lines < burst) {
		l->lines++;
		return true;
	}
	l->dropped++;
	return false;
}
