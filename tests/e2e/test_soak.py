"""A mixed load that opens and closes connections by the hundred thousand: afterwards everything is as it was before."""
import os
import re
import subprocess
import time

import pytest

from proc import alive, descendants, wait_until

PYTHON = "/usr/bin/python3"

# A process for each connection; children and parent share its session until the parent has closed.
FORKING = """
import os, socketserver
class H(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(self.request.recv(100).upper())
class S(socketserver.ForkingTCPServer): allow_reuse_address = True; request_queue_size = 128; max_children = 64
S(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"""
# All the ways to end: read to the end, half-close, reset, hang up before the answer, and a child that inherits.
CLIENT = """
import os, socket, struct, sys, threading
host, count, forks = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
def ask(n):
    s = socket.create_connection((host, 80), 30)
    if n % 16 == 15:
        s.close(); return
    s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
    if n % 16 == 14: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close(); return
    if n % 16 == 13: s.shutdown(socket.SHUT_WR)
    data = b""
    while b := s.recv(1000): data += b
    assert data.endswith(b"nginx\\n"), data; s.close()
def work(first):
    for n in range(first, count, 4): ask(n)
    done.append(first)
def forked(port):
    for n in range(max(1, count // 40)):
        s = socket.create_connection(("127.0.0.1", port), 30); s.sendall(b"hello %d" % n)
        pid = os.fork()
        if pid == 0:
            ok = s.recv(100) == b"HELLO %d" % n and s.recv(100) == b""; s.close(); os._exit(not ok)
        s.close(); assert os.waitpid(pid, 0)[1] == 0
done = []; t = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[x.start() for x in t]; [x.join() for x in t]; assert len(done) == 4
for port in forks: forked(int(port))
print(count + len(forks) * max(1, count // 40))
"""


class Family:
    """What the processes of a mesh hold, and the connections of its network namespace."""

    def __init__(self, mesh, names):
        self.mesh, self.names = mesh, names  # {name: Process}

    def pids(self):
        return {f"{name} {n}": pid for name, p in self.names.items() for n, pid in enumerate(sorted([p.pid] + descendants(p.pid)))}

    def connections(self):
        r = subprocess.run(["ip", "netns", "exec", self.mesh.netns, "ss", "-Htan"], capture_output=True, text=True, check=True)
        return [line for line in r.stdout.splitlines() if not line.startswith(("LISTEN", "TIME-WAIT"))]

    def segments(self):
        """Memory that forks share, made by one of these processes: it must go with the last of them that held it."""
        pids = {str(p) for p in self.pids().values()}
        with open("/proc/sysvipc/shm") as f:
            return sum(line.split()[4] in pids for line in list(f)[1:])

    def descriptors(self, pid):
        """weftd holds one for each living process that has spoken to it, sooner or later; more would be a leak."""
        kinds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        return len(kinds) - min(kinds.count("anon_inode:[pidfd]"), len(self.pids()))

    def counts(self):
        found = {name: (self.descriptors(pid), len(os.listdir(f"/proc/{pid}/task"))) for name, pid in self.pids().items()}
        return found, self.connections(), self.segments()

    def memory(self):
        def kib(pid):
            with open(f"/proc/{pid}/smaps_rollup") as f:
                text = f.read()
            # Clean pages are of files; they become private when somebody else who maps the file ends.
            return int(re.search(r"(?m)^Private_Dirty:\s+(\d+) kB", text).group(1))
        return {name: kib(pid) for name, pid in self.pids().items()}


def round_of(mesh, n, forking):
    """About n connections by five programs at once; how many they made."""
    by_ab, by_python = n * 3 // 10, n // 10
    url = "http://orders/who"
    completed = lambda r: int(re.search(r"Complete requests:\s+(\d+)", r.text).group(1))
    programs = [(["ab", "-q", "-n", by_ab, "-c", c, url], completed) for c in (4, 24)]
    programs += [([PYTHON, "-c", CLIENT, "orders", by_python, *ports], lambda r: int(r.text)) for ports in ([], [forking])]
    # wrk makes what it can in its time; the header makes nginx close.
    programs += [(["wrk", "-t1", "-c8", f"-d{max(1, n // 20000)}s", "-H", "Connection: close", url],
                  lambda r: int(re.search(r"(\d+) requests in", r.text).group(1)))]
    running = [(subprocess.Popen([str(a) for a in argv], env=mesh.env("web"), cwd=mesh.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 preexec_fn=mesh.enter), argv, count) for argv, count in programs]
    made = 0
    for p, argv, count in running:
        out, err = p.communicate(timeout=900)
        r = type("R", (), {"text": out.decode()})
        assert p.returncode == 0, (argv, out[-1000:], err[-1000:])
        assert "Failed requests" not in r.text or re.search(r"Failed requests:\s+0\b", r.text), r.text
        assert "Non-2xx" not in r.text, r.text
        made += count(r)
    return made


def soak(mesh, servers, total, per_round, figures):
    s = servers(mesh)
    nginx = s.nginx("orders", server="access_log off;", main="worker_rlimit_nofile 4096;")
    port = mesh.port()
    forking = s.python(FORKING, "forks", port)
    family = Family(mesh, {"nginx": nginx.process, "forking": forking, "weftd": mesh.weftd})
    round_of(mesh, per_round, port)
    wait_until(lambda: f"no connection is left, now {family.connections()}", lambda: not family.connections())
    time.sleep(2)  # weftd looks once a second for those that have gone
    before, memory = family.counts(), family.memory()
    made = 0
    while made < total:
        made += round_of(mesh, per_round, port)
    wait_until(lambda: f"as before: {before}, now {family.counts()}", lambda: family.counts() == before, 30)
    grown = {name: kib - memory[name] for name, kib in family.memory().items()}
    figures(f"soak: {made} connections; private KiB before {memory}, grown by {grown}")
    assert all(alive(pid) for pid in family.pids().values())
    return grown


@pytest.fixture
def place(make_mesh, netns):
    ns = netns()
    for setting in ("net.ipv4.ip_local_port_range=2000 65000", "net.ipv4.tcp_tw_reuse=1"):
        subprocess.run(["ip", "netns", "exec", ns, "sysctl", "-qw", setting], check=True)
    mesh = make_mesh(netns=ns)
    mesh.strict()
    return mesh


@pytest.fixture
def figures():
    def write(text):
        print(text)
        if os.environ.get("WEFT_FIGURES"):
            with open(os.environ["WEFT_FIGURES"], "a") as f:
                f.write(text + "\n")
    return write


@pytest.mark.seconds(240)
def test_twenty_thousand_connections(place, servers, figures):
    grown = soak(place, servers, 15000, 5000, figures)
    assert max(grown.values()) < 1024, grown


@pytest.mark.full
@pytest.mark.seconds(3600)
def test_a_million_connections(place, servers, figures):
    grown = soak(place, servers, 1000000, 50000, figures)
    assert max(grown.values()) < 1024, grown


HOLD = """
import resource, socket, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
n, port = int(sys.argv[1]), int(sys.argv[2])
def dirty():
    return sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith(("Private_Dirty", "Private_Clean")))
def one(held):
    if port < 0: held.append(l.accept()[0]); held[-1].sendall(held[-1].recv(1))
    else: s = socket.create_connection(("127.0.0.1", port)); s.sendall(b"x"); s.recv(1); held.append(s)
if port < 0: l = socket.create_server(("127.0.0.1", -port), backlog=128)
held = []
for _ in range(100): one(held)
before = dirty()
for _ in range(n): one(held)
print((dirty() - before) * 1024 / n, flush=True); sys.stdin.read()
"""


@pytest.mark.full
@pytest.mark.seconds(600)
def test_ten_thousand_idle_connections(place, figures):
    """In one process each end; what they take more than without weft."""
    def held(shim):
        port = place.port()
        ends = []
        for where, service in ((-port, "holds"), (port, "web")):
            p = subprocess.Popen([PYTHON, "-c", HOLD, "10000", str(where)], env=place.env(service, shim=shim), cwd=place.dir,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=place.enter)
            ends.append(p)
            if where < 0:
                place.wait_listening(port)
        bytes_each = [float(p.stdout.readline()) for p in ends]
        for p in ends:
            p.communicate()
        return bytes_each
    meshed, bare = held(True), held(False)
    server, client = (a - b for a, b in zip(meshed, bare))
    figures(f"idle: {server:.0f} bytes for a connection of a server, {client:.0f} of a client, of 10,000 in one process")
    assert max(server, client) <= 4096
