/* Reads a pipe byte by byte, n times: what callgrind counts more for 2n than for n is n calls of read(). */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MANY_MAX 32768

int main(int argc, char **argv)
{
	static char bytes[MANY_MAX];
	int n = argc == 2 ? atoi(argv[1]) : 0, fd[2];
	char byte;

	if (n < 1 || n > MANY_MAX || pipe(fd) || write(fd[1], bytes, (size_t)n) != n) {
		fprintf(stderr, "usage: pipe reads\n");
		return 2;
	}
	for (int i = 0; i < n; i++)
		if (read(fd[0], &byte, 1) != 1)
			return 1;
	return 0;
}
