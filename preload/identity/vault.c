#include "identity/vault.h"

#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define VAULT_SIZE (64u << 10)
#define VAULT_ALIGN 16 /* of what malloc returns; a block's size lies in the 16 bytes before it */

static uint8_t *vault;
static size_t vault_used;
static __thread bool vault_is_open;

static bool vault_has(const void *p)
{
	return vault && (uintptr_t)p - (uintptr_t)vault < VAULT_SIZE;
}

static void *vault_take(size_t n)
{
	size_t need = VAULT_ALIGN + ((n + VAULT_ALIGN - 1) & ~(size_t)(VAULT_ALIGN - 1));
	uint8_t *p = vault + vault_used;

	if (n > VAULT_SIZE || need > VAULT_SIZE - vault_used)
		return NULL;
	vault_used += need;
	memcpy(p, &n, sizeof(n));
	return p + VAULT_ALIGN;
}

static void *vault_malloc(size_t n, const char *file, int line)
{
	void *p = vault_is_open && vault ? vault_take(n) : NULL;

	(void)file, (void)line;
	return p ? p : malloc(n);
}

static void vault_free(void *p, const char *file, int line)
{
	size_t n;

	(void)file, (void)line;
	if (!vault_has(p)) {
		free(p);
		return;
	}
	memcpy(&n, (uint8_t *)p - VAULT_ALIGN, sizeof(n));
	OPENSSL_cleanse(p, n);
}

static void *vault_realloc(void *p, size_t n, const char *file, int line)
{
	size_t old;
	void *q;

	if (p && !vault_has(p))
		return realloc(p, n);
	q = vault_malloc(n, file, line);
	if (!p || !q)
		return q;
	memcpy(&old, (uint8_t *)p - VAULT_ALIGN, sizeof(old));
	memcpy(q, p, old < n ? old : n);
	vault_free(p, file, line);
	return q;
}

void vault_start(void)
{
	void *p;

	if (vault || !CRYPTO_set_mem_functions(vault_malloc, vault_realloc, vault_free))
		return;
	p = mmap(NULL, VAULT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return;
	(void)madvise(p, VAULT_SIZE, MADV_DONTDUMP);
	vault = p;
}

void vault_open(void)
{
	vault_is_open = true;
}

void vault_close(void)
{
	vault_is_open = false;
}

void vault_forget(const void *secret, size_t n)
{
	uint8_t *p = vault, *end = vault + vault_used;

	for (; vault && (p = memmem(p, (size_t)(end - p), secret, n)); p += n)
		OPENSSL_cleanse(p, n);
}
