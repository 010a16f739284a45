#include "cli/columns.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct columns {
	size_t width, n, room; /* n: cells, headings included */
	char **v;
};

static void *need(void *p)
{
	if (p)
		return p;
	fputs("weft: out of memory\n", stderr);
	abort();
}

char *columns_plain(char *text)
{
	for (char *s = text; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
	return text;
}

static void put(struct columns *c, char *cell)
{
	if (c->n == c->room) {
		c->room = c->room ? 2 * c->room : 64;
		c->v = need(reallocarray(c->v, c->room, sizeof(*c->v)));
	}
	c->v[c->n++] = columns_plain(cell);
}

struct columns *columns_new(const char *headings)
{
	struct columns *c = need(calloc(1, sizeof(*c)));

	for (;;) {
		size_t n = strcspn(headings, "|");

		put(c, need(strndup(headings, n)));
		c->width++;
		if (!headings[n])
			return c;
		headings += n + 1;
	}
}

void columns_cell(struct columns *c, const char *format, ...)
{
	va_list list;
	char *cell;

	va_start(list, format);
	if (vasprintf(&cell, format, list) < 0)
		cell = need(NULL);
	va_end(list);
	if (!*cell) {
		free(cell);
		cell = need(strdup("-"));
	}
	put(c, cell);
}

void columns_print(struct columns *c, FILE *f)
{
	size_t widths[COLUMNS_MAX] = { 0 };

	for (size_t i = 0; i < c->n; i++) {
		size_t n = strlen(c->v[i]), *w = &widths[i % c->width];

		*w = n > *w ? n : *w;
	}
	for (size_t i = 0; i < c->n && c->n > c->width; i++) {
		bool last = i % c->width == c->width - 1;

		fprintf(f, "%-*s%s", last ? 0 : (int)widths[i % c->width], c->v[i],
			last ? "\n" : "  ");
	}
	for (size_t i = 0; i < c->n; i++)
		free(c->v[i]);
	free(c->v);
	free(c);
}

const char *columns_span(long long s)
{
	static char text[2][32];
	static int turn;
	char *out = text[turn = !turn];

	if (s < 0)
		s = 0;
	if (s < 120)
		snprintf(out, sizeof(text[0]), "%llds", s);
	else if (s < 7200)
		snprintf(out, sizeof(text[0]), "%lldm", s / 60);
	else if (s < 172800)
		snprintf(out, sizeof(text[0]), "%lldh", s / 3600);
	else
		snprintf(out, sizeof(text[0]), "%lldd", s / 86400);
	return out;
}
