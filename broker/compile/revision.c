#include <jansson.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compile/document.h"
#include "compile/model.h"

void document_revision(const json_t *doc, const char *json, size_t len,
		       char out[static DOC_REVISION + 1])
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	char *canonical = doc ? json_dumps(doc, JSON_SORT_KEYS | JSON_COMPACT) : NULL;

	if (canonical)
		SHA256((unsigned char *)canonical, strlen(canonical), hash);
	else
		SHA256((const unsigned char *)json, len, hash);
	free(canonical);
	for (size_t i = 0; i < DOC_REVISION / 2; i++)
		snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

void doc_revision(const char *json, size_t len, char out[static DOC_REVISION + 1])
{
	json_t *doc = document_load(json, len, NULL);

	document_revision(doc, json, len, out);
	json_decref(doc);
}
