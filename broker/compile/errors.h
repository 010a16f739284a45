/* Errors of a document, and the JSON path where they are. Pure. */
#ifndef COMPILE_ERRORS_H
#define COMPILE_ERRORS_H

#include <stddef.h>

#include "compile/model.h"

/* Row: enum, code, what to do about it. */
#define ERRORS_CODES(X)                                                                          \
	X(FILE, "WEFT0100", "the file cannot be read; check its path and permissions")           \
	X(SYNTAX, "WEFT0101", "the value is not JSON; check the line and column that are named") \
	X(SIZE, "WEFT0102", "documents hold at most 1 MiB and 64 levels; split the document")    \
	X(UNKNOWN_FIELD, "WEFT0103",                                                             \
	  "no such field here; weft-keys(5) lists the fields of each kind")                      \
	X(TYPE, "WEFT0104", "the value has another JSON type than the field")                    \
	X(VALUE, "WEFT0105", "the value is of the right type but not one that the field takes")  \
	X(MISSING, "WEFT0106", "the field is required")                                          \
	X(LATER, "WEFT0107",                                                                     \
	  "this release does not support it yet; remove it, or the document stays refused")      \
	X(NEVER, "WEFT0108", "weft has no such thing; remove it")                                \
	X(RULE, "WEFT0109",                                                                      \
	  "two parts of the document contradict each other or mean nothing together")            \
	X(KEY, "WEFT0110",                                                                       \
	  "keys are weft:<Kind>:[<namespace>/]<name>, and metadata must agree with them")        \
	X(CONFLICT, "WEFT0111",                                                                  \
	  "another document has this host or scope; delete one of the two, or merge them")       \
	X(NO_HOST, "WEFT0201",                                                                   \
	  "no instance and no ServiceEntry has this name; connections there are refused")        \
	X(NO_SUBSET, "WEFT0202",                                                                 \
	  "no DestinationRule in force defines this subset; connections there are refused")      \
	X(NO_WORKLOAD, "WEFT0203", "no instance carries these labels now")                       \
	X(HTTP_RULE, "WEFT0204",                                                                 \
	  "it names parts of a request, which a connection does not have: an ALLOW rule "        \
	  "never matches, a DENY rule matches without them")                                     \
	X(UNREACHED, "WEFT0205", "an earlier route takes every connection")

enum errors_code {
#define X(name, code, help) ERRORS_##name,
	ERRORS_CODES(X)
#undef X
		ERRORS_MAX
};

#define ERRORS_PATH_MAX 256

struct errors_path { /* zero-initialise */
	char text[ERRORS_PATH_MAX];
	size_t n;
};
/* Each returns what errors_pop() takes to come back. A path that grows too long ends in what fits. */
size_t errors_push(struct errors_path *p, const char *key);
size_t errors_push_index(struct errors_path *p, size_t i);
void errors_pop(struct errors_path *p, size_t mark);

/* Appends; control bytes and bytes that are not ASCII become '?'. Out of memory it is lost. */
void errors_add(struct doc_errors *e, enum errors_code code, const struct errors_path *p,
		const char *format, ...) __attribute__((format(printf, 4, 5)));
void errors_copy(struct doc_errors *e, const struct doc_error *from); /* appends */

#endif
