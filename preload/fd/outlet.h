/* What a program gets that cannot have a meshed socket itself. */
#ifndef FD_OUTLET_H
#define FD_OUTLET_H

/* A descriptor to put in the place of `fd`, a meshed socket that `program` cannot have, because of `why`: one end of a relay
 * that speaks plaintext, else of a stream that has ended (logged). -errno: not even that. Safe in a child of vfork. */
int outlet_open(int fd, const char *program, const char *why);
int outlet_ended(void); /* the end of stream alone */

#endif
