/* The endpoints of a service, before a caller is known. Pure. */
#ifndef COMPILE_MEMBERS_H
#define COMPILE_MEMBERS_H

#include "compile/index.h"

enum member_origin {
	MEMBER_INLINE, /* of a ServiceEntry */
	MEMBER_STATIC, /* WorkloadEntry of an operator */
	MEMBER_BROKER, /* WorkloadEntry of a broker: its ports are all that it listens on */
};
struct member {
	const struct instance *instance;
	const struct item *item; /* the document it comes from */
	enum member_origin origin;
};

/* The ServiceEntry in force of a node (may be NULL), or NULL. */
const struct service_entry *members_entry(struct model *m, const struct node *n);

/* Registered instances, those that the ServiceEntry lists, or those that it selects; until `fn` returns non-zero. */
int members_each(struct model *m, const struct node *n, int (*fn)(void *arg, const struct member *),
		 void *arg);
size_t members_count(struct model *m, const struct node *n);
bool members_external(struct model *m, const struct node *n);
bool members_exist(struct model *m,
		   const struct node *n); /* the service exists, with or without endpoints */

/* The port that `dialled` means at this member, 0 if none. `s` may be NULL. design: "Virtual addresses". */
uint16_t member_port(const struct service_entry *s, const struct member *mb, uint16_t dialled);
/* Every port at which this member is known to be reached, each once; until `fn` returns non-zero. */
int member_each_port(const struct service_entry *s, const struct member *mb,
		     int (*fn)(void *arg, uint16_t port), void *arg);
bool member_listens(const struct member *mb, uint16_t port);
bool member_tls(const struct member *mb);
/* An entry that a broker wrote with a loopback address is seen in its own network namespace only. */
bool member_is_confined(const struct member *mb);

#endif
