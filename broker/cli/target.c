#include "cli/target.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HEAD_MAX 512
#define SEGMENTS_MAX 128
#define NOTES_MAX 1024
#define SCRIPTS_MAX 4 /* the kernel's own bound of interpreters of interpreters */

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#endif

static enum target_fault search(const char *program, char *path, size_t size)
{
	const char *dirs = getenv("PATH");
	enum target_fault worst = TARGET_MISSING;
	struct stat st;

	if (strchr(program, '/'))
		dirs = NULL;
	else if (!dirs)
		dirs = "/bin:/usr/bin";
	do {
		int n = dirs ? (int)strcspn(dirs, ":") : 0;

		if (!dirs)
			snprintf(path, size, "%s", program);
		else
			snprintf(path, size, "%.*s%s%s", n, dirs, n ? "/" : "./", program);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(path, X_OK) == 0)
				return TARGET_OK;
			worst = TARGET_NOT_EXECUTABLE;
		} else if (!dirs && errno != ENOENT && errno != ENOTDIR) {
			worst = TARGET_NOT_EXECUTABLE;
		}
		dirs = dirs && dirs[n] ? dirs + n + 1 : NULL;
	} while (dirs);
	return worst;
}

/* The dynamic loader clears LD_PRELOAD where the program gains rights by its file (AT_SECURE). */
static bool gains_rights(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	if ((st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    (st.st_mode & S_ISGID && st.st_gid != getgid()))
		return true;
	return getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

/* Go's linker leaves a note of this owner in every program, which makes its system calls by itself even where it uses libc
 * for names. Notes of one segment are padded to its alignment. */
static bool is_go(int fd, const Elf64_Phdr *p)
{
	size_t align = p->p_align == 8 ? 8 : 4, at = 0, n;
	char notes[NOTES_MAX];
	ssize_t got;
	Elf64_Nhdr note;

	n = p->p_filesz < sizeof(notes) ? p->p_filesz : sizeof(notes);
	got = pread(fd, notes, n, (off_t)p->p_offset);
	while (got >= 0 && at + sizeof(note) + 4 <= (size_t)got) {
		memcpy(&note, notes + at, sizeof(note));
		at += sizeof(note);
		if (note.n_namesz == 4 && memcmp(notes + at, "Go\0", 4) == 0)
			return true;
		at += (((size_t)note.n_namesz + align - 1) & ~(align - 1)) +
		      (((size_t)note.n_descsz + align - 1) & ~(align - 1));
	}
	return false;
}

static enum target_fault check_segments(int fd, const Elf64_Ehdr *h)
{
	enum target_fault found = TARGET_STATIC;
	char interpreter[256];
	Elf64_Phdr p;

	for (size_t i = 0; i < h->e_phnum && i < SEGMENTS_MAX; i++) {
		size_t n;

		if (pread(fd, &p, sizeof(p), (off_t)(h->e_phoff + i * sizeof(p))) != sizeof(p))
			break;
		if (p.p_type == PT_NOTE && is_go(fd, &p) && found == TARGET_OK)
			return TARGET_GO;
		if (p.p_type != PT_INTERP)
			continue;
		n = p.p_filesz < sizeof(interpreter) ? p.p_filesz : sizeof(interpreter) - 1;
		if (pread(fd, interpreter, n, (off_t)p.p_offset) != (ssize_t)n)
			break;
		interpreter[n] = '\0';
		found = strstr(interpreter, "musl") ? TARGET_MUSL : TARGET_OK;
	}
	return found;
}

static enum target_fault check_elf(int fd, const char *head, size_t n)
{
	Elf64_Ehdr h;

	if (n < sizeof(h) || head[EI_CLASS] != ELFCLASS64)
		return TARGET_FOREIGN;
	memcpy(&h, head, sizeof(h));
	if (h.e_machine != OUR_MACHINE)
		return TARGET_FOREIGN;
	if (gains_rights(fd))
		return TARGET_SETUID;
	return check_segments(fd, &h);
}

static enum target_fault check_file(const char *path, unsigned depth)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char head[HEAD_MAX + 1], *s;
	enum target_fault f = TARGET_OK;
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? TARGET_MISSING
				       : TARGET_OK; /* may be executable without being readable */
	n = pread(fd, head, HEAD_MAX, 0);
	head[n > 0 ? n : 0] = '\0';
	if (n >= 4 && memcmp(head, ELFMAG, 4) == 0) {
		f = check_elf(fd, head, (size_t)n);
	} else if (n > 2 && head[0] == '#' && head[1] == '!' && depth < SCRIPTS_MAX) {
		s = head + 2 + strspn(head + 2, " \t");
		s[strcspn(s, " \t\n")] = '\0';
		f = check_file(s, depth + 1);
	}
	close(fd);
	return f;
}

enum target_fault target_check(const char *program, char *path, size_t size)
{
	enum target_fault f = search(program, path, size);

	return f == TARGET_OK ? check_file(path, 0) : f;
}

const char *target_text(enum target_fault f)
{
	static const char *const texts[TARGET_FAULTS] = {
		[TARGET_OK] = "",
		[TARGET_MISSING] = "no such program",
		[TARGET_NOT_EXECUTABLE] = "it is not executable",
		[TARGET_STATIC] = "it is statically linked, no library can be loaded into it",
		[TARGET_MUSL] = "it is linked with musl, weft needs glibc",
		[TARGET_FOREIGN] = "it is a 32-bit program or one of another machine",
		[TARGET_SETUID] =
			"it is setuid, setgid or has capabilities, so LD_PRELOAD is ignored for it",
		[TARGET_GO] =
			"it is written in Go, which makes its system calls past every library",
	};

	return (unsigned)f < TARGET_FAULTS ? texts[f] : "";
}
