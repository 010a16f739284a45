"""What weft costs a process: nothing where nothing is meshed, no thread and no descriptor where something is."""
import os
import re
import subprocess
import time

import pytest

from mesh import SHIM
from proc import wait_until

# Does socket-free and socket work that is no business of the mesh, between two marks that strace shows.
WORK = """
import os, socket, select
os.stat("/mark-begin") if False else None
try: os.stat("/mark-begin")
except OSError: pass
a, b = socket.socketpair()
r, w = os.pipe()
ep = select.epoll(); ep.register(r, select.EPOLLIN); ep.register(a, select.EPOLLIN)
for n in range(50):
    os.write(w, b"x"); ep.poll(0); os.read(r, 1)
    b.sendall(b"hello"); ep.poll(0); a.recv(10); select.select([a], [], [], 0)
    p = select.poll(); p.register(a); p.poll(0)
d = os.dup(a.fileno()); os.close(d)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0)); u.sendto(b"x", u.getsockname()); u.recv(9)
try: os.stat("/mark-end")
except OSError: pass
"""


def test_only_the_c_library_is_needed():
    needed = re.findall(r"NEEDED.*\[(.*?)\]", subprocess.run(["readelf", "-d", SHIM], capture_output=True, text=True).stdout)
    assert set(needed) <= {"libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2"}, needed


def syscalls(text):
    """Names and results between the marks, without what differs from run to run."""
    lines = text.split("\n")
    begin = next(i for i, l in enumerate(lines) if "/mark-begin" in l)
    end = next(i for i, l in enumerate(lines) if "/mark-end" in l)
    return [re.sub(r"^(?:\[pid\s+\d+\] |\d+ +)?(\w+)\(.*\)\s+= (-?\w+).*", r"\1", l) for l in lines[begin:end]]


def test_no_extra_system_call_where_nothing_is_meshed(mesh):
    def trace(shim):
        path = f"{mesh.dir}/strace-{shim}"
        env = {"LD_PRELOAD": SHIM} if shim else {}
        options = [w for k, v in env.items() for w in ("-E", f"{k}={v}")]
        r = mesh.run(["strace", "-f", "-o", path, "-E", f"WEFT_SOCKET={mesh.socket}", *options, "/usr/bin/python3", "-c", WORK],
                     shim=False)
        assert r.code == 0, r
        return syscalls(open(path).read())
    bare = trace(False)
    assert len(bare) > 300
    assert trace(True) == bare


def test_start_up_costs_at_most_1_ms(mesh):
    """Interleaved runs of a small program; the difference of the fastest, which a busy machine does not change. The median: scripts/bench."""
    def once(shim):
        env = {"PATH": os.environ["PATH"], "WEFT_SOCKET": mesh.socket, **({"LD_PRELOAD": SHIM} if shim else {})}
        began = time.perf_counter()
        subprocess.run(["/bin/true"], env=env, check=True)
        return time.perf_counter() - began
    times = {False: [], True: []}
    for n in range(120):
        times[bool(n % 2)].append(once(bool(n % 2)))
    added = min(times[True]) - min(times[False])
    assert added < 0.001, f"{added * 1000:.2f} ms"


def test_no_extra_thread_and_no_extra_fd_in_a_meshed_process(strict, servers):
    code = """
import os, socket, sys, time
def look(): return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
held = []
for n in range(20):
    s = socket.create_connection(("orders", 80)); held.append(s)
    s.sendall(b"GET /who HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"); s.recv(4096)
print(*look())
"""
    nginx = servers(strict).nginx("orders")
    meshed = strict.run(["/usr/bin/python3", "-c", code, str(strict.port())], service="web")
    bare = strict.run(["/usr/bin/python3", "-c", code.replace('"orders", 80', f'"127.0.0.1", {nginx.port}'),
                       str(strict.port())], shim=False)
    # The bare one is refused by STRICT only when it reads; its descriptors and threads are what counts.
    assert meshed.code == 0, meshed
    permissive = strict.apply("PeerAuthentication", "istio-system/default", {"mtls": {"mode": "PERMISSIVE"}})
    assert permissive["accepted"]
    wait_until("a bare client is served", lambda: strict.curl(nginx.url + "/who", shim=False).text == "nginx\n")
    bare = strict.run(["/usr/bin/python3", "-c", code.replace('"orders", 80', f'"127.0.0.1", {nginx.port}'),
                       str(strict.port())], shim=False)
    assert meshed.text == bare.text, (meshed, bare)


def test_a_meshed_server_has_the_same_fds_and_threads(strict, servers):
    def look(nginx):
        pid = nginx.process.pid
        return (len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))
    meshed = servers(strict).nginx("orders", main="master_process off;")
    plain = servers(strict).nginx("orders", main="master_process off;", shim=False)
    assert strict.curl("http://orders/who").text == "nginx\n"
    assert strict.curl(plain.url + "/who", shim=False).text == "nginx\n"
    wait_until(lambda: f"{look(meshed)} == {look(plain)}", lambda: look(meshed) == look(plain))


@pytest.mark.parametrize("program", [["/bin/sh", "-c", "exit 3"], ["/usr/bin/python3", "-c", "raise SystemExit(3)"]])
def test_exit_status_and_output_are_untouched(mesh, program):
    r = mesh.run(program)
    assert (r.code, r.out, r.err) == (3, b"", b"")


def test_without_weftd_nothing_is_said_and_nothing_is_slow(mesh):
    r = mesh.run(["/usr/bin/python3", "-c", "import socket; socket.socketpair(); print(1)"],
                 env={"WEFT_SOCKET": "/nonexistent/weftd.sock"})
    assert (r.out, r.err) == (b"1\n", b"") and r.seconds < 2


def test_secure_programs_ignore_the_environment(mesh):
    """A setuid program is started by the loader without the preload; it runs as ever."""
    r = mesh.run(["/usr/bin/su", "--version"])
    assert r.code == 0 and not r.err, r
