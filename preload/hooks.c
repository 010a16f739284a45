/* Writes weft-hooks(7) on stdout, from preload/sys/symbols.def. Run by make. */
#include <stdio.h>
#include <string.h>

#include "weft/env.h"

enum row { HOOKED, OPTIONALLY, ALIASED, PASSED, FAMILY_BEGINS };

static const struct {
	enum row row;
	const char *name, *text;
} rows[] = {
#define HOOK(ret, name, params, args) { HOOKED, #name, "" },
#define OPTIONAL(ret, name, params, args) { OPTIONALLY, #name, "" },
#define ALIAS(name, other) { ALIASED, #name, #other },
#define PASS(names, reason) { PASSED, names, reason },
#define FAMILY(title, text) { FAMILY_BEGINS, title, text },
#include "sys/symbols.def"
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* Text of a roff line: no request at its start, no escapes, plain hyphens. */
static void put(const char *s)
{
	if (*s == '.' || *s == '\'')
		fputs("\\&", stdout);
	for (; *s; s++) {
		if (*s == '\\')
			fputs("\\e", stdout);
		else if (*s == '-')
			fputs("\\-", stdout);
		else
			putchar(*s);
	}
}

/* Names of the rows of one kind that follow row `i`, up to the next family. */
static void put_names(size_t i, enum row row, const char *title)
{
	const char *between = "";

	for (i++; i < ROWS && rows[i].row != FAMILY_BEGINS; i++) {
		if (rows[i].row != row)
			continue;
		if (!*between)
			printf(".TP\n%s\n", title);
		fputs(between, stdout);
		between = ",\n";
		printf("\\fB");
		put(rows[i].name);
		printf("\\fR");
		if (row == ALIASED) {
			fputs(" (as ", stdout);
			put(rows[i].text);
			putchar(')');
		}
	}
	fputs(*between ? "\n" : "", stdout);
}

static void put_family(size_t i)
{
	fputs(".SS ", stdout);
	put(rows[i].name);
	putchar('\n');
	put(rows[i].text);
	putchar('\n');
	put_names(i, HOOKED, "Replaced:");
	put_names(i, OPTIONALLY, "Replaced where libc has it:");
	put_names(i, ALIASED, "Other names of these:");
	for (i++; i < ROWS && rows[i].row != FAMILY_BEGINS; i++) {
		if (rows[i].row != PASSED)
			continue;
		printf(".TP\nNot replaced: \\fB");
		put(rows[i].name);
		printf("\\fR\n");
		put(rows[i].text);
		fputs(".\n", stdout);
	}
}

int main(void)
{
	puts(".TH WEFT-HOOKS 7 \"\" \"weft " WEFT_VERSION "\" \"weft\"\n"
	     ".SH NAME\n"
	     "weft\\-hooks \\- the library calls that libweft.so replaces, and those that it does "
	     "not\n"
	     ".SH DESCRIPTION\n"
	     "libweft.so stands before libc in a program that preloads it and serves these "
	     "functions in\n"
	     "its place. For a descriptor that is no meshed TCP connection each is one look into a "
	     "table\n"
	     "and then the real function. On a meshed connection they return what they return on a "
	     "plain\n"
	     "one, with the same errno, and leave errno alone on success.\n"
	     ".SH CALLS");
	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].row == FAMILY_BEGINS)
			put_family(i);
	puts(".SH SEE ALSO\n"
	     ".BR weft (1),\n"
	     ".BR weft\\-keys (5),\n"
	     ".BR weftd (8)");
	return ferror(stdout) ? 1 : 0;
}
