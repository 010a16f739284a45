"""Processes of a test: started in a folder with their output in files, ended by their pid, and waiting with a deadline."""
import ctypes
import os
import signal
import socket
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_CHILD_SUBREAPER = 36


class TimeUp(AssertionError):
    pass


def wait_until(what, condition, seconds=10.0, every=0.01):
    """The condition's first true value; fails with `what` after the deadline."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeUp(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(every)


def free_port(netns=None):
    """A TCP port that nobody has. The kernel does not give it to another bind to port 0 at once."""
    with in_netns(netns), socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class in_netns:
    """This thread is in the named network namespace for the length of the block; sockets made there stay there."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        if self.name:
            self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            enter_netns(self.name)

    def __exit__(self, *_):
        if self.name:
            if LIBC.setns(self.home, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            os.close(self.home)


def enter_netns(name):
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    if LIBC.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns {name}")
    os.close(fd)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid=None):
    """Pids of the living children of a process."""
    pid = pid or os.getpid()
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += [int(p) for p in f.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return [p for p in found if alive(p)]


def descendants(pid):
    found = []
    try:
        for child in children(pid):
            found += [child] + descendants(child)
    except FileNotFoundError:
        pass
    return found


class Process:
    """A program that runs until it is ended; its output is in `log`."""

    def __init__(self, argv, log, env=None, cwd=None, netns=None, stdin=subprocess.DEVNULL, own_session=True, user=None):
        self.argv = [str(a) for a in argv]
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                self.argv, env=env, cwd=cwd, stdin=stdin, stdout=out, stderr=out, start_new_session=own_session,
                user=user, preexec_fn=(lambda: enter_netns(netns)) if netns else None)
        self.pid = self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def wait(self, seconds=20):
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeUp(f"still running after {seconds} s: {' '.join(self.argv)}\n{self.text()[-2000:]}") from None

    def kill(self, sig=signal.SIGKILL):
        if self.running():
            self.popen.send_signal(sig)
            if sig == signal.SIGKILL:
                self.popen.wait()

    def end(self, seconds=5):
        """SIGTERM, then SIGKILL, to it and to all that it started."""
        family = descendants(self.pid) if self.running() else []
        if self.running():
            self.popen.terminate()
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        end_all(family)

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()


def end_all(pids):
    for sig, seconds in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        left = [p for p in pids if alive(p)]
        for pid in left:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass
        end = time.monotonic() + seconds
        while any(alive(p) for p in left) and time.monotonic() < end:
            time.sleep(0.01)


def become_subreaper():
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
