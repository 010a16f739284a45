/* weft try: standard output and error of a run against those of the two bare runs. What differs between these differs by
 * nature: the comparison is as strict as the two allow. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/columns.h"
#include "cli/try.h"

#define OUTPUT_MAX (256u << 20) /* bytes of one file that are compared */
#define SHOW_LINES 8
#define SHOW_BYTES 300

/* How alike the two bare runs are; each level is compared by less than the one before. */
enum level {
	EXACT,
	NUMBERS, /* words with digits in them differ: pids, times, ports, addresses */
	ORDER,   /* and the order of the lines */
	COMMON,  /* and some lines: those that both bare runs have are to be there */
};

struct lines {
	char *text;
	char **v;
	size_t n;
};

static void lines_free(struct lines *l)
{
	free(l->text);
	free(l->v);
}

static bool is_ignored(const struct trial *t, const char *line)
{
	for (size_t i = 0; i < t->ignore_n; i++)
		if (regexec(&t->ignore[i], line, 0, NULL, 0) == 0)
			return true;
	return false;
}

static size_t read_file(const char *path, char **out)
{
	FILE *f = fopen(path, "re");
	size_t room = 1 << 16, n = 0, got;
	char *text = malloc(room);

	while (f && text && n < OUTPUT_MAX && (got = fread(text + n, 1, room - n - 1, f)) > 0) {
		n += got;
		if (n + 1 == room) {
			char *more = realloc(text, room *= 2);

			if (!more)
				abort();
			text = more;
		}
	}
	if (f)
		fclose(f);
	if (!text)
		abort();
	text[n] = '\0';
	*out = text;
	return n;
}

static void load(const struct trial *t, enum try_run run, const char *name, struct lines *l)
{
	char path[TRY_PATH], *end;
	size_t n, most = 1;

	try_path(t, run, name, path);
	n = read_file(path, &l->text);
	for (size_t i = 0; i < n; i++) {
		most += l->text[i] == '\n';
		if (!l->text[i])
			l->text[i] = '\1'; /* so that a line is one string */
	}
	l->v = calloc(most, sizeof(*l->v));
	l->n = 0;
	if (!l->v)
		abort();
	for (char *s = l->text; s < l->text + n; s = end + 1) {
		end = s + strcspn(s, "\n");
		*end = '\0';
		if (!is_ignored(t, s))
			l->v[l->n++] = s;
	}
}

static bool is_word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Every word with a digit in it becomes '#'. In place. */
static void mask(char *s)
{
	char *out = s;

	while (*s) {
		size_t n = 0;
		bool digit = false;

		for (; is_word(s[n]); n++)
			digit = digit || (s[n] >= '0' && s[n] <= '9');
		if (digit) {
			*out++ = '#';
		} else {
			n += !n;
			memmove(out, s, n);
			out += n;
		}
		s += n;
	}
	*out = '\0';
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void loosen(struct lines *l, enum level level)
{
	if (level == NUMBERS)
		for (size_t i = 0; i < l->n; i++)
			mask(l->v[i]);
	if (level == ORDER)
		qsort(l->v, l->n, sizeof(*l->v), by_text);
}

static bool equal(const struct lines *a, const struct lines *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return true;
}

/* Lines of sorted `a` that sorted `b` lacks go to `fn`, or, with `common`, those that it has. */
static size_t walk(const struct lines *a, const struct lines *b, bool common, json_t *out,
		   const char *sign, char **kept)
{
	size_t found = 0;

	for (size_t i = 0, j = 0; i < a->n; i++) {
		int c;

		while ((c = j < b->n ? strcmp(a->v[i], b->v[j]) : -1) > 0)
			j++;
		j += c == 0;
		if ((c == 0) != common)
			continue;
		if (kept)
			kept[found] = a->v[i];
		if (out && found < SHOW_LINES)
			try_line(out, "%s %.*s", sign, SHOW_BYTES, columns_plain(a->v[i]));
		found++;
	}
	if (out && found > SHOW_LINES)
		try_line(out, "%s ... and %zu more", sign, found - SHOW_LINES);
	return found;
}

/* What differs, as lines that only one of them has; the lines of both are sorted afterwards. */
static void tell(struct trial *t, enum try_run run, const char *what, enum level level,
		 struct lines *bare, struct lines *seen)
{
	json_t *out;
	size_t n;

	qsort(bare->v, bare->n, sizeof(*bare->v), by_text);
	qsort(seen->v, seen->n, sizeof(*seen->v), by_text);
	if (level == COMMON && walk(bare, seen, false, NULL, "", NULL) == 0)
		return;
	out = try_differs(t, run, what);
	n = walk(bare, seen, false, out, "-", NULL);
	if (level != COMMON)
		n += walk(seen, bare, false, out, "+", NULL);
	if (!n)
		try_line(out, "the same lines in another order");
}

static void compare(struct trial *t, enum try_run run, const char *name, const char *what)
{
	static const char *const texts[] = {
		[NUMBERS] = "numbers differ between two bare runs, and are not compared",
		[ORDER] =
			"numbers and the order of lines differ between two bare runs, and are not "
			"compared",
		[COMMON] = "differs between two bare runs; only the lines that both have are "
			   "looked for",
	};
	struct lines bare, again, seen;
	enum level level = EXACT;

	load(t, TRY_BARE, name, &bare);
	load(t, TRY_AGAIN, name, &again);
	load(t, run, name, &seen);
	while (level < COMMON && !equal(&bare, &again)) {
		level++;
		loosen(&bare, level);
		loosen(&again, level);
		loosen(&seen, level);
	}
	if (level == COMMON)
		bare.n = walk(&bare, &again, true, NULL, "", bare.v);
	if (level != EXACT && run == TRY_PASS) /* once is enough */
		try_note(t, "%s: %s", what, texts[level]);
	if (level == COMMON || !equal(&bare, &seen))
		tell(t, run, what, level, &bare, &seen);
	lines_free(&bare);
	lines_free(&again);
	lines_free(&seen);
}

void try_compare_output(struct trial *t, enum try_run run)
{
	compare(t, run, "program.stdout", "standard output");
	compare(t, run, "program.stderr", "standard error");
	if (t->client) {
		compare(t, run, "client.stdout", "standard output of the client");
		compare(t, run, "client.stderr", "standard error of the client");
	}
}
