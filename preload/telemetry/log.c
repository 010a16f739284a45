#include "telemetry/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>

#include "sys/clock.h"
#include "sys/confined.h"
#include "sys/sys.h"

#define LINE_MAX_BYTES 512
#define WINDOW_MS 10000 /* in each, so many lines at most */
#define WINDOW_LINES 20

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static struct {
	enum log_level level;
	char path[256];
	bool has_stderr; /* descriptor 2 was this file when we were loaded; later it may be anything */
	dev_t dev;
	ino_t ino;
} config = { .level = LOG_LEVEL_WARN };

static _Atomic(log_reporter *) reporter;
static _Atomic uint64_t window; /* its start in milliseconds << 16, and the lines in it */

static bool stderr_id(struct stat *st)
{
	return sys_call(SYS_fstat, 2, (long)st, 0, 0, 0, 0) == 0;
}

void log_start(const char *spec)
{
	struct stat st;
	size_t n;

	config.has_stderr = stderr_id(&st);
	config.dev = st.st_dev;
	config.ino = st.st_ino;
	if (!spec || !*spec)
		return;
	n = strcspn(spec, ":");
	for (int l = LOG_LEVEL_ERROR; l <= LOG_LEVEL_DEBUG; l++) {
		if (strlen(level_names[l]) != n || memcmp(spec, level_names[l], n) != 0)
			continue;
		config.level = (enum log_level)l;
		/* A relative path would move with the guest's directory, one cut short is another file. */
		if (spec[n] && spec[n + 1] == '/' && strlen(spec + n + 1) < sizeof(config.path))
			memcpy(config.path, spec + n + 1, strlen(spec + n + 1) + 1);
		return;
	}
}

void log_set_reporter(log_reporter *fn)
{
	atomic_store_explicit(&reporter, fn, memory_order_release);
}

/* Whether one more line may go out now. */
static bool admit_line(void)
{
	uint64_t now = (uint64_t)clock_now_ms(), was = atomic_load(&window), next;

	do {
		if (was && now - (was >> 16) < WINDOW_MS) {
			if ((was & 0xffff) >= WINDOW_LINES)
				return false;
			next = was + 1;
		} else {
			next = now << 16 | 1;
		}
	} while (!atomic_compare_exchange_weak(&window, &was, next));
	return true;
}

static void to_file(const char *line, size_t n)
{
	long fd = sys_call(SYS_openat, AT_FDCWD, (long)config.path,
			   O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640,
			   0, 0);

	if (fd < 0)
		return;
	sys_call(SYS_write, fd, (long)line, (long)n, 0, 0, 0);
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* Never to a descriptor 2 that the guest has made something else since. */
static void to_stderr(enum log_level level, const char *line, size_t n)
{
	struct termios t;
	struct stat st;

	if (!config.has_stderr || !stderr_id(&st) || st.st_dev != config.dev ||
	    st.st_ino != config.ino)
		return;
	if (level == LOG_LEVEL_ERROR || sys_call(SYS_ioctl, 2, TCGETS, (long)&t, 0, 0, 0) == 0)
		sys_call(SYS_write, 2, (long)line, (long)n, 0, 0, 0);
}

/* Texts of weftd and of peers come in here: one line stays one line. */
static void blot_controls(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 127)
			*text = '?';
}

void log_line(enum log_level level, const char *fmt, ...)
{
	log_reporter *report = atomic_load_explicit(&reporter, memory_order_acquire);
	char line[LINE_MAX_BYTES];
	int saved = errno, head, n;
	va_list ap;

	if (level > config.level || confined() || !admit_line())
		return;
	head = snprintf(line, sizeof(line),
			"weft[%ld] %s: ", sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0),
			level_names[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + head, sizeof(line) - 1 - (size_t)head, fmt, ap);
	va_end(ap);
	n = n < 0 ? head : head + n;
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	blot_controls(line + head);
	if (report)
		report(level, line + head);
	line[n++] = '\n';
	if (config.path[0])
		to_file(line, (size_t)n);
	to_stderr(level, line, (size_t)n);
	errno = saved;
}
