/* What the tests of the compile room share: putting documents with a little less typing. */
#ifndef TESTS_DOCUMENTS_H
#define TESTS_DOCUMENTS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compile/model.h"
#include "weft/ident.h"

/* JSON with ' for ", as C has no raw strings. */
static inline char *quoted(const char *text)
{
	char *json = strdup(text);

	for (char *c = json; *c; c++)
		if (*c == '\'')
			*c = '"';
	return json;
}

static inline int put_errors(struct model *m, const char *key, const char *text,
			     struct doc_errors *errors)
{
	char *json = quoted(text);
	int r = model_put(m, key, json, strlen(json), errors);

	free(json);
	return r;
}

/* The document must be taken. */
static inline void put(struct model *m, const char *key, const char *text)
{
	struct doc_errors errors = { 0 };
	int r = put_errors(m, key, text, &errors);

	for (size_t i = 0; i < errors.n; i++)
		print_error("%s: %s: %s\n", key, errors.v[i].path, errors.v[i].message);
	doc_errors_free(&errors);
	assert_int_equal(r, 0);
}

/* The document must be refused with an error at `path` whose message holds `part`. */
static inline void refuse(struct model *m, const char *key, const char *text, const char *path,
			  const char *part)
{
	struct doc_errors errors = { 0 };
	int r = put_errors(m, key, text, &errors);
	bool found = false;

	for (size_t i = 0; i < errors.n; i++)
		found |= strcmp(errors.v[i].path, path) == 0 && strstr(errors.v[i].message, part);
	for (size_t i = 0; !found && i < errors.n; i++)
		print_error("%s: \"%s\": %s\n", key, errors.v[i].path, errors.v[i].message);
	doc_errors_free(&errors);
	assert_int_equal(r, -EINVAL);
	assert_true(found);
}

/* One instance as a broker announces it. */
static inline void announce(struct model *m, const char *name, const char *service,
			    const char *version, const char *address, unsigned port, bool main_port)
{
	char key[128], text[1024], note[64] = "";

	if (main_port)
		snprintf(note, sizeof(note), ", 'weft/main-port': '%u'", port);
	snprintf(key, sizeof(key), "weft:WorkloadEntry:default/%s", name);
	snprintf(
		text, sizeof(text),
		"{'metadata': {'name': '%s', 'namespace': 'default', 'annotations': {'weft/host': "
		"'h1', "
		"'weft/netns': '7'%s}}, 'spec': {'address': '%s', 'ports': {'tcp-%u': %u}, "
		"'serviceAccount': '%s', "
		"'labels': {'service.istio.io/canonical-name': '%s', 'app': '%s', 'version': '%s', "
		"'security.istio.io/tlsMode': 'istio'}}}",
		name, note, address, port, port, service, service, service, version);
	put(m, key, text);
}

#endif
