#include "conduit/target.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/sys.h"

#define SCRIPT_DEPTH 5 /* interpreters of interpreters, as the kernel allows */
#define SCRIPT_LINE 256
#define SHIM_PATH 1024      /* stacks may be small */
#define SHIM_NAME "libweft" /* in LD_PRELOAD and /etc/ld.so.preload */

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#endif

static long read_at(long fd, void *buf, size_t n, uint64_t at)
{
	return sys_call(SYS_pread64, fd, (long)buf, (long)n, (long)at, 0, 0);
}

/* Does one of the names in `list` mean the shim, and is it there? */
static bool list_has_shim(const char *list, const char *separators)
{
	char name[SHIM_PATH];
	size_t n;

	for (; *list; list += n + (list[n] != 0)) {
		n = strcspn(list, separators);
		if (n >= sizeof(name))
			continue;
		memcpy(name, list, n);
		name[n] = 0;
		if (strstr(name, SHIM_NAME) &&
		    (!strchr(name, '/') ||
		     sys_call(SYS_faccessat, AT_FDCWD, (long)name, R_OK, 0, 0, 0) == 0))
			return true;
	}
	return false;
}

static bool file_has_shim(void)
{
	char text[1024];
	long fd = sys_call(SYS_openat, AT_FDCWD, (long)"/etc/ld.so.preload", O_RDONLY | O_CLOEXEC,
			   0, 0, 0);
	long n;

	if (fd < 0)
		return false;
	n = read_at(fd, text, sizeof(text) - 1, 0);
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
	text[n > 0 ? n : 0] = 0;
	return list_has_shim(text, " \t\n:");
}

static enum target look_at_environment(char *const envp[], const char **why)
{
	static const char name[] = "LD_PRELOAD=";

	for (; envp && *envp && strncmp(*envp, name, sizeof(name) - 1) != 0; envp++)
		;
	if ((envp && *envp && list_has_shim(*envp + sizeof(name) - 1, " :")) || file_has_shim())
		return TARGET_MESHED;
	*why = "LD_PRELOAD of its environment does not name the shim";
	return envp && *envp ? TARGET_FOREIGN : TARGET_UNASKED;
}

/* Would the kernel raise rights, so that the loader forgets LD_PRELOAD? */
static bool is_privileged(long fd)
{
	char caps[64];
	struct stat st;

	if (getauxval(AT_SECURE) || getuid() != geteuid() || getgid() != getegid() ||
	    sys_call(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) < 0)
		return true;
	if ((st.st_mode & S_ISUID && st.st_uid != geteuid()) ||
	    ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getegid()))
		return true;
	return geteuid() != 0 && sys_call(SYS_fgetxattr, fd, (long)"security.capability",
					  (long)caps, sizeof(caps), 0, 0) > 0;
}

static const char is_musl[] =
	"it is linked with musl, whose loader starts no program with the shim";

bool target_is_musl(const char *why)
{
	return why == is_musl;
}

/* The program's loader: glibc's? */
static const char *look_at_loader(long fd, const Elf64_Ehdr *h)
{
	char loader[64];
	Elf64_Phdr p;
	size_t n;
	int i;

	for (i = 0; i < h->e_phnum; i++) {
		if (read_at(fd, &p, sizeof(p), h->e_phoff + (uint64_t)i * sizeof(p)) != sizeof(p))
			return "its file is damaged";
		if (p.p_type != PT_INTERP)
			continue;
		n = p.p_filesz < sizeof(loader) ? p.p_filesz : sizeof(loader) - 1;
		if (read_at(fd, loader, n, p.p_offset) != (long)n)
			return "its file is damaged";
		loader[n] = 0;
		if (strstr(loader, "/ld-musl"))
			return is_musl;
		return strstr(loader, "/ld-linux") ? NULL : "its C library is not glibc";
	}
	return "it is statically linked";
}

static enum target look_at_elf(long fd, const Elf64_Ehdr *h, char *const envp[], const char **why)
{
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_machine != MACHINE)
		*why = "it is for another machine";
	else if (h->e_phentsize != sizeof(Elf64_Phdr))
		*why = "its file is damaged";
	else if (is_privileged(fd))
		*why = "it runs with other rights";
	else
		*why = look_at_loader(fd, h);
	return *why ? TARGET_FOREIGN : look_at_environment(envp, why);
}

/* "#! interpreter argument". False: there is none. */
static bool interpreter_of(char *line, size_t n)
{
	size_t from = 2;

	line[n < SCRIPT_LINE ? n : SCRIPT_LINE - 1] = 0;
	from += strspn(line + from, " \t");
	n = strcspn(line + from, " \t\n");
	memmove(line, line + from, n);
	line[n] = 0;
	return n > 0;
}

static long open_target(int dir, const char *path, int flags)
{
	char self[32] = "/proc/self/fd/";
	size_t at = strlen(self), digits = 1;
	int d;

	if (*path || !(flags & AT_EMPTY_PATH))
		return sys_call(SYS_openat, dir, (long)path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0,
				0, 0);
	for (d = dir; d >= 10; d /= 10)
		digits++;
	for (d = dir; digits > 0; d /= 10)
		self[at + --digits] = (char)('0' + d % 10);
	return sys_call(SYS_openat, AT_FDCWD, (long)self, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, 0,
			0);
}

static bool is_text(const char *head, long n)
{
	return n <= 0 || (head[0] >= ' ' && head[0] < 127) || strchr("\t\n", head[0]);
}

/* What the file is; where its program is another file, that one's path in `line`. */
static enum target look_once(long fd, int flags, char *const envp[], char line[SCRIPT_LINE],
			     const char **why)
{
	Elf64_Ehdr elf;
	long n = read_at(fd, line, SCRIPT_LINE, 0);

	*why = NULL;
	if (n >= (long)sizeof(elf) && memcmp(line, ELFMAG, SELFMAG) == 0) {
		memcpy(&elf, line, sizeof(elf));
		line[0] = 0;
		return look_at_elf(fd, &elf, envp, why);
	}
	if (n > 2 && memcmp(line, "#!", 2) == 0)
		return interpreter_of(line, (size_t)n) ? TARGET_MESHED : TARGET_NONE;
	if (!is_text(line, n)) {
		*why = "its file has a format of its own";
		return TARGET_FOREIGN;
	}
	memcpy(line, "/bin/sh", sizeof("/bin/sh"));
	return flags & TARGET_SHELL ? TARGET_MESHED : TARGET_NONE;
}

enum target target_look(int dir, const char *path, int flags, char *const envp[], const char **why)
{
	char line[SCRIPT_LINE];
	enum target t;
	int depth;
	long fd;

	if (*path && sys_call(SYS_faccessat, dir, (long)path, X_OK, 0, 0, 0) < 0)
		return TARGET_NONE;
	for (depth = 0; depth <= SCRIPT_DEPTH; depth++) {
		fd = open_target(dir, path, flags);
		if (fd < 0) {
			*why = "its file cannot be read";
			return fd == -EACCES || fd == -EPERM ? TARGET_FOREIGN : TARGET_NONE;
		}
		t = look_once(fd, flags, envp, line, why);
		sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
		if (t != TARGET_MESHED || !line[0])
			return t;
		dir = AT_FDCWD;
		path = line;
		flags = 0;
	}
	return TARGET_NONE;
}
