/* Programs that start with less than others: no descriptor at all, so that a connection is 0, 1 or 2; and no right to make
 * memory executable that was written to. */
#include "probe.h"

#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

/* Says by its exit status how far it came: there is nothing to print to. */
static int without_descriptors(void)
{
	struct sockaddr_in addr;
	char b[8];
	int l = listen_on(&addr), c, s;

	if (l != 0)
		return 1;
	c = connect_to(&addr);
	s = accept(l, NULL, NULL);
	if (c != 1 || s != 2)
		return 2;
	send_all(c, "first", 5);
	recv_all(s, b, 5);
	if (write(s, "second", 6) != 6 || read(c, b, 6) != 6 || memcmp(b, "second", 6) != 0)
		return 3;
	if (close(c) != 0 || read(s, b, 1) != 0)
		return 4;
	if (dup(s) != 1)
		return 5;
	return 0;
}

static void start_without(char *self)
{
	pid_t pid = fork();
	int status;

	MUST(pid >= 0);
	if (!pid) {
		MUST(close(0) == 0 && close(1) == 0 && close(2) == 0);
		execl("/proc/self/exe", self, "without", NULL);
		_exit(98);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	printf("without descriptors: %#x\n", (unsigned)status);
}

/* As systemd's MemoryDenyWriteExecute has it, where the kernel knows it. */
static void without_new_code(void)
{
	struct pair p;
	char line[16] = "";
	FILE *in, *out;
	pid_t pid = fork();
	int status;

	MUST(pid >= 0);
	if (!pid) {
		prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
		pair_open(&p);
		out = fdopen(p.client, "w");
		in = fdopen(p.server, "r");
		MUST(out && in && fputs("a line\n", out) >= 0 && fflush(out) == 0);
		MUST(fgets(line, sizeof(line), in));
		fputs(line, stdout);
		MUST(fclose(out) == 0 && !fgets(line, sizeof(line), in) && fclose(in) == 0);
		exit(0);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	printf("without new code: %#x\n", (unsigned)status);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return without_descriptors();
	probe_start();
	start_without(argv[0]);
	without_new_code();
	return 0;
}
