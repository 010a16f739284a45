/* The scalars of documents, strictly: one check or parser per type of policy.def. Pure. */
#ifndef COMPILE_VALUE_H
#define COMPILE_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#define VALUE_MILLIS_MAX UINT64_C(3600000)

/* Istio's duration: "10s", "1.5s", "1h2m", "250ms"; whole milliseconds, 1 ms to 1 h. 0 or -EINVAL. */
int value_millis(const char *text, uint64_t *ms);
bool value_label_key(const char *s);   /* [prefix/]name, Kubernetes' label key */
bool value_label_value(const char *s); /* Kubernetes' label value, may be empty */
bool value_name(const char *s);        /* name of a document: RFC 1123 subdomain */
int value_port(const char *s);         /* "8080" -> 8080; -EINVAL */
bool value_spiffe(const char *s);      /* Istio's form of a SPIFFE ID */
bool value_selector(const char *s);    /* "unix:uid:1000", see model.h */

/* Index of `text` in the words of an ENUM ("A|~B|C"), -1 if it is none of them; *later: marked by '~'. */
int value_word(const char *words, const char *text, bool *later);
/* n-th word without its mark, copied to out. false past the end. */
bool value_word_at(const char *words, int n, char out[static 64]);

#endif
