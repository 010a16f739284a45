/* Diagnostics of the shim: one line to weftd's log (REPORT), to WEFT_LOG's file, and on `error` or a terminal to stderr.
 * Rate-limited, formats into a stack buffer of 512 bytes, writes by raw system call, preserves errno.
 * Not for hot paths and never on a fd that is not meshed. */
#ifndef TELEMETRY_LOG_H
#define TELEMETRY_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_start(
	const char *
		spec); /* WEFT_LOG; NULL for the default, which also stands in for what is no level */

/* Who carries lines to weftd: control, which lies above this room. `text` is valid during the call only.
 * It may block for a moment and must not log. */
typedef void log_reporter(enum log_level level, const char *text);
void log_set_reporter(log_reporter *fn);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
