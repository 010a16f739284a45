/* How long a program takes from spawn to its end, bare and under a library, interleaved. Medians in microseconds:
 *   start runs program library */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#define RUNS_MAX 2000

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double run(char *program, char *preload)
{
	char *argv[] = { program, NULL }, *envp[] = { preload, NULL };
	double began = now_us();
	int status;
	pid_t child;

	if (posix_spawn(&child, program, NULL, NULL, argv, envp) ||
	    waitpid(child, &status, 0) < 0 || status) {
		fprintf(stderr, "start: %s does not run\n", program);
		exit(1);
	}
	return now_us() - began;
}

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return d < 0 ? -1 : d > 0;
}

int main(int argc, char **argv)
{
	static double bare[RUNS_MAX], shim[RUNS_MAX];
	int runs = argc == 4 ? atoi(argv[1]) : 0;
	char preload[4096];

	if (runs < 1 || runs > RUNS_MAX) {
		fprintf(stderr, "usage: start runs program library\n");
		return 2;
	}
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", argv[3]);
	for (int i = 0; i < runs; i++) {
		bare[i] = run(argv[2], NULL);
		shim[i] = run(argv[2], preload);
	}
	qsort(bare, (size_t)runs, sizeof(*bare), compare);
	qsort(shim, (size_t)runs, sizeof(*shim), compare);
	printf("{\"bare_us\": %.1f, \"shim_us\": %.1f}\n", bare[runs / 2], shim[runs / 2]);
	return 0;
}
