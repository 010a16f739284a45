#include "sys/stack.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/confined.h"
#include "sys/raw.h"

#define STACK_KEEP 2
#define STACK_GUARD (64u << 10) /* a page, of whatever size */

/* Sanitizers want to be told of every change of stack; their own builds have none. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_OWN 0
#else
#define STACK_OWN 1
#endif

void stack_switch(void (*fn)(void *arg), void *arg, void *top);

#if defined(__x86_64__)
__asm__(".text\n"
	".hidden stack_switch\n"
	".globl stack_switch\n"
	".type stack_switch, @function\n"
	"stack_switch:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	push %rbp\n"
	"	.cfi_def_cfa_offset 16\n"
	"	.cfi_offset %rbp, -16\n"
	"	mov %rsp, %rbp\n"
	"	.cfi_def_cfa_register %rbp\n"
	"	mov %rdx, %rsp\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	call *%rax\n"
	"	mov %rbp, %rsp\n"
	"	pop %rbp\n"
	"	.cfi_def_cfa %rsp, 8\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size stack_switch, .-stack_switch\n");
#elif defined(__aarch64__)
__asm__(".text\n"
	".hidden stack_switch\n"
	".globl stack_switch\n"
	".type stack_switch, %function\n"
	"stack_switch:\n"
	"	.cfi_startproc\n"
	"	hint #34\n" /* bti c */
	"	stp x29, x30, [sp, #-16]!\n"
	"	.cfi_def_cfa_offset 16\n"
	"	.cfi_offset x29, -16\n"
	"	.cfi_offset x30, -8\n"
	"	mov x29, sp\n"
	"	.cfi_def_cfa_register x29\n"
	"	mov sp, x2\n"
	"	mov x9, x0\n"
	"	mov x0, x1\n"
	"	blr x9\n"
	"	mov sp, x29\n"
	"	.cfi_def_cfa_register sp\n"
	"	ldp x29, x30, [sp], #16\n"
	"	.cfi_def_cfa_offset 0\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size stack_switch, .-stack_switch\n");
#endif

static char *_Atomic kept[STACK_KEEP];
static __thread bool inside;

static char *stack_new(void)
{
	long p = raw_syscall(SYS_mmap, 0, STACK_GUARD + STACK_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p < 0 && p > -4096)
		return NULL;
	if (!confined())
		raw_syscall(SYS_mprotect, p, STACK_GUARD, PROT_NONE, 0, 0, 0);
	return (char *)p;
}

static char *stack_get(void)
{
	char *s;

	for (int i = 0; i < STACK_KEEP; i++)
		if (atomic_load_explicit(&kept[i], memory_order_relaxed) &&
		    (s = atomic_exchange_explicit(&kept[i], NULL, memory_order_acquire)))
			return s;
	return stack_new();
}

static void stack_put(char *s)
{
	for (int i = 0; i < STACK_KEEP; i++) {
		char *none = NULL;

		if (atomic_compare_exchange_strong_explicit(
			    &kept[i], &none, s, memory_order_release, memory_order_relaxed))
			return;
	}
	raw_syscall(SYS_munmap, (long)s, STACK_GUARD + STACK_SIZE, 0, 0, 0, 0);
}

void stack_run(void (*fn)(void *arg), void *arg)
{
	char *s = STACK_OWN && !inside ? stack_get() : NULL;

	if (!s) {
		fn(arg);
		return;
	}
	inside = true;
	stack_switch(fn, arg, s + STACK_GUARD + STACK_SIZE);
	inside = false;
	stack_put(s);
}
