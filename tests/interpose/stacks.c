/* Small stacks: threads of PTHREAD_STACK_MIN, fibers of makecontext(), handlers on an alternative stack, that make, accept, use
 * and close connections. Nothing is printed on them: printf() alone would not fit. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <ucontext.h>

#define PAGE 4096u

static struct sockaddr_in addr;
static int listener;

/* The part of each stack that was touched is not printed, as it may differ; but it must end before the guard page, which
 * faults. */
static void *new_stack(size_t size)
{
	char *p =
		mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED && mprotect(p, PAGE, PROT_NONE) == 0);
	return p + PAGE;
}

static void *serve(void *arg)
{
	char b[8];
	int fd = accept(listener, NULL, NULL);

	(void)arg;
	if (fd < 0 || recv(fd, b, 5, MSG_WAITALL) != 5 || send(fd, b, 5, 0) != 5 || close(fd) < 0)
		return "server failed";
	return NULL;
}

static void *ask(void *arg)
{
	struct pollfd p = { .events = POLLIN };
	char b[8];

	(void)arg;
	p.fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(p.fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    send(p.fd, "hello", 5, 0) != 5 || poll(&p, 1, -1) != 1 ||
	    recv(p.fd, b, 5, MSG_WAITALL) != 5 || close(p.fd) < 0)
		return "client failed";
	return NULL;
}

/* The event loop's way: nothing waits but epoll_wait(). */
static void *ask_epoll(void *arg)
{
	struct epoll_event ev = { .events = EPOLLOUT };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
	char b[8];

	(void)arg;
	connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0 || epoll_wait(ep, &ev, 1, -1) != 1 ||
	    send(fd, "hello", 5, 0) != 5)
		return "send failed";
	ev.events = EPOLLIN;
	if (epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) < 0 || epoll_wait(ep, &ev, 1, -1) != 1 ||
	    recv(fd, b, 5, 0) != 5 || close(fd) < 0 || close(ep) < 0)
		return "recv failed";
	return NULL;
}

static pthread_t small(void *(*fn)(void *))
{
	size_t size = (size_t)sysconf(_SC_THREAD_STACK_MIN);
	pthread_attr_t a;
	pthread_t t;

	size = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
	MUST(pthread_attr_init(&a) == 0);
	MUST(pthread_attr_setstack(&a, new_stack(size), size) == 0);
	MUST(pthread_create(&t, &a, fn, NULL) == 0);
	MUST(pthread_attr_destroy(&a) == 0);
	return t;
}

static void threads(const char *name, void *(*client)(void *))
{
	pthread_t s = small(serve), c = small(client);
	void *said[2];

	MUST(pthread_join(s, &said[0]) == 0 && pthread_join(c, &said[1]) == 0);
	printf("%s: %s, %s\n", name, said[0] ? (char *)said[0] : "served",
	       said[1] ? (char *)said[1] : "answered");
}

/* The first connection of a process, with all that comes before it. */
static void firstborn(void)
{
	int ends[2], status;
	pthread_t t;
	void *said;
	pid_t pid;

	MUST(pipe(ends) == 0);
	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		MUST(read(ends[0], &addr, sizeof(addr)) == sizeof(addr));
		t = small(ask);
		MUST(pthread_join(t, &said) == 0);
		_exit(said ? 1 : 0);
	}
	listener = listen_on(&addr);
	MUST(write(ends[1], &addr, sizeof(addr)) == sizeof(addr));
	said = serve(NULL);
	MUST(waitpid(pid, &status, 0) == pid && close(ends[0]) == 0 && close(ends[1]) == 0);
	printf("first: %s, %d\n", said ? (char *)said : "served", status);
}

static ucontext_t home, fiber;
static void *fiber_said;

static void fiber_main(void)
{
	fiber_said = ask(NULL);
}

static void fibers(size_t size)
{
	pthread_t s = small(serve);
	void *said;

	MUST(getcontext(&fiber) == 0);
	fiber.uc_stack.ss_sp = new_stack(size);
	fiber.uc_stack.ss_size = size;
	fiber.uc_link = &home;
	makecontext(&fiber, fiber_main, 0);
	MUST(swapcontext(&home, &fiber) == 0);
	MUST(pthread_join(s, &said) == 0);
	printf("fiber: %s, %s\n", said ? (char *)said : "served",
	       fiber_said ? (char *)fiber_said : "answered");
}

static void *volatile handler_said = "not run";

static void on_signal(int sig)
{
	(void)sig;
	handler_said = ask(NULL);
}

static void handlers(void)
{
	size_t size = (size_t)sysconf(_SC_MINSIGSTKSZ) + 8192;
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	stack_t st;
	pthread_t s = small(serve);
	void *said;

	size = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
	st = (stack_t){ .ss_sp = new_stack(size), .ss_size = size };
	MUST(sigaltstack(&st, NULL) == 0 && sigaction(SIGUSR1, &sa, NULL) == 0);
	MUST(raise(SIGUSR1) == 0);
	MUST(pthread_join(s, &said) == 0);
	printf("handler: %s, %s\n", said ? (char *)said : "served",
	       handler_said ? (char *)handler_said : "answered");
}

int main(void)
{
	probe_start();
	firstborn();
	for (int i = 0; i < 3; i++)
		threads("blocking", ask);
	threads("event loop", ask_epoll);
	fibers(65536);
	fibers(16384);
	handlers();
	MUST(close(listener) == 0);
	return 0;
}
