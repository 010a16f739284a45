/* Where the private key lies: one mapping that is kept out of core dumps. OpenSSL has no allocator per object, so while a
 * thread holds the vault open all that OpenSSL allocates there comes from it; and what lies in it is never reused. */
#ifndef IDENTITY_VAULT_H
#define IDENTITY_VAULT_H

#include <stddef.h>

/* Puts the vault between OpenSSL and malloc. Has no effect once OpenSSL has allocated something: the key then lies in
 * the heap, as it does where the mapping cannot be had. */
void vault_start(void);
void vault_open(void); /* by one thread at a time: the caller holds a lock */
void vault_close(void);
/* Overwrites every copy of the `n` bytes of `secret` in the vault, and nothing around them. */
void vault_forget(const void *secret, size_t n);

#endif
