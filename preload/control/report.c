/* Lines of the log on their way to weftd. */
#include "control/exchange.h"
#include "control/internal.h"
#include "telemetry/log.h"

#define REPORT_MS 100

/* Only to a weftd that was seen alive: a process that meshes nothing asks nobody. */
static void report(enum log_level level, const char *text)
{
	struct wire_report in = { .text = wire_str_of(text), .level = level };
	struct wire_registered out;
	struct exchange x = { .type = WIRE_REPORT,
			      .ask = &wire_schema_report,
			      .in = &in,
			      .answer = &wire_schema_registered,
			      .out = &out,
			      .timeout_ms = REPORT_MS,
			      .aside = true };

	if (!board_is_fresh())
		return;
	exchange(&x);
	exchange_close(&x);
}

void report_start(void)
{
	log_set_reporter(report);
}
