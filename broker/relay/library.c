#include "relay/library.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int library_find(const char *given, char *out, size_t size)
{
	static const char *const places[] = { "%s/libweft.so", "%s/../lib/libweft.so" };
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *full;

	if (given) {
		full = realpath(given, NULL);
		snprintf(out, size, "%s", full ? full : given);
		free(full);
		return access(out, R_OK) == 0 ? 0 : -ENOENT;
	}
	self[n > 0 ? n : 0] = '\0';
	if (strrchr(self, '/'))
		*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < 2; i++) {
		char place[4200];

		snprintf(place, sizeof(place), places[i], self);
		full = realpath(place, NULL);
		snprintf(out, size, "%s", full ? full : place);
		free(full);
		if (access(out, R_OK) == 0)
			return 0;
	}
	return -ENOENT;
}
