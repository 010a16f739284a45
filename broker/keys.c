/* Writes weft-keys(5) on stdout, from include/weft/policy.def. Run by make. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "compile/table.h"
#include "compile/value.h"
#include "weft/env.h"

static const char *const type_names[] = {
	[TABLE_TEXT] = "text",
	[TABLE_BOOL] = "true or false",
	[TABLE_NUMBER] = "number",
	[TABLE_PORT] = "port",
	[TABLE_MILLIS] = "duration",
	[TABLE_HOST] = "host name",
	[TABLE_GLOB_HOST] = "host name, *.name or *",
	[TABLE_ADDRESS] = "IP address",
	[TABLE_CIDR] = "IP address or CIDR block",
	[TABLE_LABEL] = "name",
	[TABLE_LABEL_VALUE] = "label value",
	[TABLE_SPIFFE] = "SPIFFE ID",
	[TABLE_ANY] = "anything",
};

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

static void put_words(const char *words)
{
	char word[64];
	bool later, first = true;

	for (int i = 0; value_word_at(words, i, word); i++) {
		if (value_word(words, word, &later) < 0 || later)
			continue;
		fputs(first ? "" : ", ", stdout);
		first = false;
		put(word);
	}
}

static void put_type(const struct table_field *f)
{
	if (f->shape == TABLE_LIST)
		fputs("list of ", stdout);
	else if (f->shape == TABLE_MAP)
		fputs("object, each value ", stdout);
	if (f->type == TABLE_ENUM)
		put_words(f->of);
	else
		put(f->type == TABLE_OBJECT ? f->of : type_names[f->type]);
}

static void put_field(const struct table_field *f)
{
	fputs(".TP\n.B ", stdout);
	put(f->name);
	fputs("\n(", stdout);
	put_type(f);
	if (*f->preset) {
		fputs("; default ", stdout);
		put(f->preset);
	}
	fputs(f->state == TABLE_NEEDED ? "; required)\n"
	      : f->state == TABLE_NOOP ? "; changes nothing)\n"
				       : ")\n",
	      stdout);
	put(f->text);
	fputs(".\n", stdout);
}

static void put_fields(const char *message)
{
	size_t n, refused = 0;
	const struct table_field *f = table_fields(message, &n);

	for (size_t i = 0; i < n; i++)
		if (f[i].state < TABLE_LATER)
			put_field(&f[i]);
	for (size_t i = 0; i < n; i++) {
		if (f[i].state < TABLE_LATER)
			continue;
		fputs(refused++ ? ",\n" : ".TP\nRefused by this release\n", stdout);
		put(f[i].name);
	}
	if (refused)
		fputs(".\n", stdout);
}

static void put_kinds(void)
{
	for (size_t i = 0; i < KIND_MAX; i++) {
		if (table_kinds[i].state >= TABLE_LATER)
			continue;
		printf(".SS %s\n", table_kinds[i].name);
		put(table_kinds[i].text);
		fputs(".\n", stdout);
		put_fields(table_kinds[i].name);
	}
	puts(".SS Refused kinds");
	for (size_t i = 0; i < KIND_MAX; i++)
		if (table_kinds[i].state >= TABLE_LATER) {
			printf(".TP\n.B %s\n", table_kinds[i].name);
			if (table_kinds[i].state == TABLE_LATER)
				fputs("not supported yet by this release: ", stdout);
			put(table_kinds[i].text);
			fputs(".\n", stdout);
		}
}

static void put_objects(void)
{
	static const char *const messages[] = {
#define KIND(kind, state, touches, text)
#define MESSAGE(message) #message,
#define FIELD(message, field, shape, type, of, preset, state, text)
#include "weft/policy.def"
#undef KIND
#undef MESSAGE
#undef FIELD
	};

	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
		if (!table_kind(messages[i], strlen(messages[i]))) {
			printf(".SS %s\n", messages[i]);
			put_fields(messages[i]);
		}
}

static void put_head(void)
{
	puts(".TH WEFT-KEYS 5 \"\" \"weft " WEFT_VERSION "\" \"weft\"\n"
	     ".SH NAME\n"
	     "weft\\-keys \\- the documents that rule a mesh\n"
	     ".SH DESCRIPTION\n"
	     "Registry and policy of a mesh lie in Redis: one resource, one key, one JSON "
	     "document.\n"
	     ".PP\n"
	     ".RS\n"
	     "weft:\\fIKind\\fR:[\\fInamespace\\fR/]\\fIname\\fR\n"
	     ".RE\n"
	     ".PP\n"
	     "Without a namespace it is \\fBdefault\\fR. Kinds, fields, defaults and meaning are "
	     "Istio's;\n"
	     "what is ours says so. The value is the \\fBspec\\fR alone, or the whole manifest "
	     "(\\fBManifest\\fR\n"
	     "below), whose kind, name and namespace must then be those of the key.\n"
	     ".PP\n"
	     "A wrong document is refused whole and the last good version stays in force. Why is "
	     "in\n"
	     "\\fBweft:status:\\fIKind\\fB:\\fIname\\fR, in \\fBweft status\\fR and in \\fBweft "
	     "analyze\\fR.\n"
	     "Of two documents for one host or scope the key that sorts first is in force.\n"
	     ".PP\n"
	     "Durations are such as 10s, 1.5s, 250ms or 1m30s. Hosts \\fIorders\\fR, "
	     "\\fIorders.ns\\fR,\n"
	     "\\fIorders.ns.svc\\fR, \\fIorders.ns.svc.cluster.local\\fR and \\fIorders.weft\\fR "
	     "are one service;\n"
	     "a bare name means the document's namespace.\n"
	     ".SH KINDS");
}

static void put_examples(void)
{
	puts(".SH EXAMPLES\n"
	     "Mutual TLS only, in the whole mesh:\n"
	     ".PP\n.nf\n.RS\n"
	     "redis\\-cli SET weft:PeerAuthentication:istio\\-system/default \\e\n"
	     "  \\(aq{\"mtls\":{\"mode\":\"STRICT\"}}\\(aq\n"
	     ".RE\n.fi\n.PP\n"
	     "One connection in ten to version 2:\n"
	     ".PP\n.nf\n.RS\n"
	     "redis\\-cli SET weft:DestinationRule:orders \\(aq{\"host\":\"orders\",\"subsets\":[\n"
	     "  "
	     "{\"name\":\"v1\",\"labels\":{\"version\":\"v1\"}},{\"name\":\"v2\",\"labels\":{"
	     "\"version\":\"v2\"}}]}\\(aq\n"
	     "redis\\-cli SET weft:VirtualService:orders "
	     "\\(aq{\"hosts\":[\"orders\"],\"tcp\":[{\"route\":[\n"
	     "  {\"destination\":{\"host\":\"orders\",\"subset\":\"v1\"},\"weight\":90},\n"
	     "  {\"destination\":{\"host\":\"orders\",\"subset\":\"v2\"},\"weight\":10}]}]}\\(aq\n"
	     ".RE\n.fi\n"
	     ".SH SEE ALSO\n"
	     ".BR weft (1),\n"
	     ".BR weftd (8)");
}

int main(void)
{
	put_head();
	put_kinds();
	puts(".SH OBJECTS");
	put_objects();
	put_examples();
	return ferror(stdout) ? 1 : 0;
}
