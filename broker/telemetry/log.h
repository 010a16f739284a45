/* The broker's log: one line per event on stderr. Lines are at most 1 KiB; control bytes in them are replaced by '?',
 * for names and texts of guests and documents end up here. Never blocks longer than stderr does. */
#ifndef TELEMETRY_LOG_H
#define TELEMETRY_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

int log_level_parse(const char *text); /* enum log_level, or -EINVAL */
void log_start(enum log_level level);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* A bound for events that strangers can cause: at most `burst` lines a second. Zero-initialised by the owner. */
struct log_limit {
	uint64_t second;
	unsigned lines, dropped;
};
bool log_allowed(struct log_limit *l, unsigned burst);

#endif
