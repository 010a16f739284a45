#include "fd/vars.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "weft/env.h"

#define VARS_BYTES 4096
#define PRELOAD "LD_PRELOAD="
#define OURS "WEFT_"

static struct {
	char text[VARS_BYTES];
	char *at[VARS_MAX];
	size_t n;
} vars;

static bool begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

void vars_start(void)
{
	size_t used = 0, len;
	char **e;

	for (e = environ; e && *e && vars.n < VARS_MAX; e++) {
		len = strlen(*e) + 1;
		if ((!begins(*e, PRELOAD) && !begins(*e, OURS)) || begins(*e, WEFT_ENV_EXEC "=") ||
		    len > sizeof(vars.text) - used)
			continue;
		vars.at[vars.n++] = memcpy(vars.text + used, *e, len);
		used += len;
	}
}

static bool has(char *const envp[], const char *var)
{
	size_t name = strcspn(var, "=") + 1;

	for (; envp && *envp; envp++)
		if (strncmp(*envp, var, name) == 0)
			return true;
	return false;
}

size_t vars_missing(char *const envp[], char *out[VARS_MAX])
{
	size_t i, n = 0;

	for (i = 0; i < vars.n; i++) {
		if (has(envp, vars.at[i]))
			continue;
		if (out)
			out[n] = vars.at[i];
		n++;
	}
	return n;
}
