/* stdio on sockets: narrow and wide streams, dprintf, freopen, streams over stdin and stdout, O_NONBLOCK. */
#include "probe.h"

#include <locale.h>
#include <stdarg.h>
#include <wchar.h>

struct ends {
	struct pair p;
	FILE *in, *out; /* both of the server's end */
	FILE *peer;
};

static void ends_open(struct ends *e)
{
	pair_open(&e->p);
	e->in = fdopen(e->p.server, "r");
	e->out = fdopen(dup(e->p.server), "w");
	e->peer = fdopen(e->p.client, "r+");
	MUST(e->in && e->out && e->peer);
}

static void ends_close(struct ends *e)
{
	char c;

	SHOW(fclose(e->out));
	SHOW(fclose(e->in));
	SHOW(fgetc(e->peer));
	printf("end %d error %d\n", feof(e->peer), ferror(e->peer));
	SHOW(fclose(e->peer));
	SHOW(read(e->p.client, &c, 1));
	MUST(close(e->p.listener) == 0);
}

static void lines(void)
{
	char line[80], *got = NULL;
	size_t size = 0;
	struct ends e;

	ends_open(&e);
	fprintf(e.peer, "one %d\ntwo\n\nfour without end", 1);
	SHOW(fflush(e.peer));
	shutdown(e.p.client, SHUT_WR);
	MUST(fgets(line, sizeof(line), e.in));
	printf("fgets: %s", line);
	SHOW(getline(&got, &size, e.in));
	SHOW(ungetc('*', e.in));
	SHOW(getline(&got, &size, e.in));
	SHOW(fread(line, 1, sizeof(line), e.in));
	printf("%s%.16s\n", got, line);
	printf("end %d error %d\n", feof(e.in), ferror(e.in));
	SHOW(fputs("answer\n", e.out) >= 0);
	SHOW(fputc('x', e.out));
	SHOW(putw(7, e.out));
	SHOW(fflush(NULL));
	MUST(fgets(line, sizeof(line), e.peer));
	printf("fgets: %s", line);
	SHOW(fgetc(e.peer));
	SHOW(getw(e.peer));
	SHOW(fileno(e.in) == e.p.server);
	SHOW(ftell(e.out));
	SHOW(fseek(e.out, 0, SEEK_SET));
	free(got);
	ends_close(&e);
}

static void wide(void)
{
	wchar_t line[80];
	struct ends e;

	ends_open(&e);
	SHOW(fwprintf(e.out, L"gr\u00fc\u00df %d\n", 5));
	SHOW(fputws(L"\u20ac uro\n", e.out) >= 0);
	SHOW(fflush(e.out));
	SHOW(fwide(e.peer, 1) > 0);
	MUST(fgetws(line, 80, e.peer));
	printf("%zu %x %x\n", wcslen(line), (unsigned)line[2], (unsigned)line[3]);
	MUST(fgetws(line, 80, e.peer));
	printf("%zu %x\n", wcslen(line), (unsigned)line[0]);
	SHOW(fclose(e.out));
	SHOW(fclose(e.in));
	SHOW((int)fgetwc(e.peer));
	SHOW(fclose(e.peer));
	MUST(close(e.p.listener) == 0);
}

static int print(int fd, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = vdprintf(fd, format, ap);
	va_end(ap);
	return r;
}

static void to_descriptors(void)
{
	struct pair p;
	char buf[64];

	pair_open(&p);
	SHOW(dprintf(p.client, "%s=%d\n", "x", 42));
	SHOW(print(p.client, "%05d", 9));
	recv_all(p.server, buf, 10);
	printf("%.10s\n", buf);
	SHOW(dprintf(p.client, "%s", ""));
	SHOW(dprintf(-1, "x"));
	SHOW(shutdown(p.client, SHUT_WR));
	signal(SIGPIPE, SIG_IGN);
	SHOW(dprintf(p.client, "late"));
	signal(SIGPIPE, SIG_DFL);
	pair_close(&p);
}

/* More than any buffer, written and read by streams. */
static void *write_much(void *arg)
{
	FILE *f = arg;

	for (int i = 0; i < 40000; i++)
		MUST(fprintf(f, "line %d of many\n", i) > 0);
	MUST(fflush(f) == 0);
	return NULL;
}

static void much(void)
{
	uint64_t h = HASH_START;
	size_t n, total = 0;
	char buf[3000];
	struct ends e;
	pthread_t t;

	ends_open(&e);
	MUST(pthread_create(&t, NULL, write_much, e.out) == 0);
	while (total < 748890 &&
	       (n = fread(buf, 1, 748890 - total < 3000 ? 748890 - total : 3000, e.peer))) {
		h = hash(h, buf, n);
		total += n;
	}
	MUST(pthread_join(t, NULL) == 0);
	printf("%zu bytes, %016lx\n", total, (unsigned long)h);
	ends_close(&e);
}

static void unbuffered(void)
{
	struct ends e;
	char b[8] = "";

	ends_open(&e);
	MUST(setvbuf(e.out, NULL, _IONBF, 0) == 0);
	MUST(setvbuf(e.in, NULL, _IONBF, 0) == 0);
	SHOW(fputs("ab", e.out) >= 0);
	recv_all(e.p.client, b, 2);
	SHOW(send(e.p.client, "cdef", 4, 0));
	SHOW(fgetc(e.in));
	SHOW(read(e.p.server, b, 8));
	printf("%s\n", b);
	ends_close(&e);
}

static void nonblocking(void)
{
	struct ends e;
	char b[8];

	ends_open(&e);
	set_nonblock(e.p.server, true);
	SHOW(fread(b, 1, 4, e.in));
	printf("end %d error %d\n", feof(e.in), ferror(e.in));
	clearerr(e.in);
	SHOW(send(e.p.client, "abc", 3, 0));
	wait_for(e.p.server, POLLIN);
	SHOW(fread(b, 1, 8, e.in));
	printf("%.3s error %d\n", b, ferror(e.in));
	ends_close(&e);
}

/* The stream goes to another file, and the peer hears of the end. */
static void reopened(const char *path, const char *mode)
{
	struct ends e;
	char b[4];

	ends_open(&e);
	MUST(fclose(e.in) == 0);
	fputs("last", e.out);
	SHOW(freopen(path, mode, e.out) != NULL);
	SHOW(fread(b, 1, 4, e.peer));
	printf("%.4s\n", b);
	SHOW(fgetc(e.peer));
	printf("end %d error %d\n", feof(e.peer), ferror(e.peer));
	MUST(fclose(e.peer) == 0 && close(e.p.listener) == 0);
}

/* As a program of inetd's: the socket is stdin and stdout. */
static void standard(void)
{
	int keep_in = dup(0), keep_out = dup(1), n;
	char word[16], line[64] = "";
	struct pair p;

	pair_open(&p);
	fflush(stdout);
	MUST(dup2(p.server, 0) == 0 && dup2(p.server, 1) == 1 && close(p.server) == 0);
	setvbuf(stdout, NULL, _IOFBF, 512);
	send_all(p.client, "7 words\n", 8);
	MUST(scanf("%d %15s", &n, word) == 2);
	printf("%d %s\n", n, word);
	puts("and out");
	fflush(stdout);
	recv_all(p.client, line, 2 + 5 + 1 + 8);
	MUST(dup2(keep_in, 0) == 0 && dup2(keep_out, 1) == 1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s", line);
	SHOW(recv(p.client, line, 1, 0));
	MUST(close(keep_in) == 0 && close(keep_out) == 0 && close(p.client) == 0 &&
	     close(p.listener) == 0);
}

int main(void)
{
	probe_start();
	MUST(setlocale(LC_CTYPE, "C.UTF-8"));
	lines();
	wide();
	to_descriptors();
	much();
	unbuffered();
	nonblocking();
	reopened("/dev/null", "w");
	reopened("/nonexistent/file", "w");
	reopened(NULL, "w");
	standard();
	return 0;
}
