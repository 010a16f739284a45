#include "sys/twin.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>

#include "sys/sys.h"

#define TWIN_SONAME "libweft.so"

/* An address of the dynamic section, which ld.so may have relocated in place, or not. */
static const char *text_at(const struct dl_phdr_info *o, uintptr_t table, uintptr_t at)
{
	return (const char *)(table < o->dlpi_addr ? table + o->dlpi_addr : table) + at;
}

static bool has_our_name(const struct dl_phdr_info *o, const ElfW(Dyn) * d)
{
	uintptr_t table = 0, name = 0;

	for (; d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_STRTAB)
			table = d->d_un.d_ptr;
		if (d->d_tag == DT_SONAME)
			name = d->d_un.d_val;
	}
	return table && name && strcmp(text_at(o, table, name), TWIN_SONAME) == 0;
}

struct search {
	uintptr_t base; /* of the object that has the next close() */
	bool found;
};

static int look_at_object(struct dl_phdr_info *o, size_t size, void *arg)
{
	struct search *s = arg;

	(void)size;
	if (o->dlpi_addr != s->base)
		return 0;
	for (int i = 0; i < o->dlpi_phnum; i++)
		if (o->dlpi_phdr[i].p_type == PT_DYNAMIC)
			s->found = has_our_name(
				o, (const ElfW(Dyn) *)(o->dlpi_addr + o->dlpi_phdr[i].p_vaddr));
	return 1;
}

bool twin_is_behind(void)
{
	struct search s = { 0 };
	Dl_info next;

	if (!dladdr((const void *)(uintptr_t)sys.close, &next))
		return false;
	s.base = (uintptr_t)next.dli_fbase;
	dl_iterate_phdr(look_at_object, &s);
	return s.found;
}
