"""The relay: sessions whose descriptors left the sight of the shim. Its own life first, spoken to as a shim speaks to it."""
import array
import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading

import pytest

from proc import alive, wait_until
from servers import pattern

RELAY = 8  # wire_type
MAGIC = 0x6C657277
ONE_MB = 1 << 20


class Relay:
    """A guest without a shim, so that what it hands over is no session and passes in the clear."""

    def __init__(self, mesh, uid=0):
        self.mesh, self.path = mesh, f"{mesh.dir}/run/relay-{uid}.sock"

    def ask(self):
        """Message RELAY to weftd; the relay's pid, 0 if it was there before."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.mesh.socket)
            s.sendall(struct.pack("<IBBxx", 1, 1, RELAY) + b"\x80")
            answer = s.recv(1000)
        assert answer[5] == RELAY | 0x80, answer
        body = answer[8:]
        return int.from_bytes(body[3:], "big") if len(body) > 3 else body[2] if len(body) == 3 else 0

    def hand(self, *fds, magic=MAGIC, version=1):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.path)
            s.sendmsg([struct.pack("<II", magic, version)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            return s.recv(1)

    def hand_refused(self):
        """Nobody listens."""
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.path) == errno.ECONNREFUSED

    def carry(self):
        """(near, peer): what is written to one comes out of the other, by way of the relay."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            wire, _ = listener.accept()
        near, far = socket.socketpair()
        assert self.hand(wire.fileno(), far.fileno()) == b"\0"
        wire.close()
        far.close()
        near.settimeout(20)
        peer.settimeout(20)
        return near, peer


@pytest.fixture
def relay(mesh):
    return Relay(mesh)


def pump(source, sink, data):
    """All of `data` from one end to the other, then the end of the stream."""
    def send():
        source.sendall(data)
        source.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=send)
    t.start()
    got = bytearray()
    while chunk := sink.recv(1 << 18):
        got += chunk
    t.join()
    return bytes(got)


def test_bulk_half_closed(relay):
    """100 MB each way, byte for byte: the first after the second has seen the end of the other's stream."""
    assert relay.ask() > 0
    data = pattern(100 * ONE_MB)
    near, peer = relay.carry()
    assert pump(near, peer, data) == data
    assert pump(peer, near, data) == data
    near.close()
    peer.close()


def test_back_pressure(relay):
    """Nobody reads: the writer is stopped, the relay keeps what fits into the kernel's buffers and one block."""
    pid = relay.ask()
    near, peer = relay.carry()
    before = rss(pid)
    near.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:
            near.send(bytes(ONE_MB))
    assert rss(pid) - before < 512
    near.close()
    peer.close()


def rss(pid):
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))


def fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_resets(relay):
    """Either side that goes away takes the other along."""
    relay.ask()
    near, peer = relay.carry()
    near.sendall(b"x")
    assert peer.recv(1) == b"x"
    peer.sendall(b"unread")
    wait_until("it is there", lambda: near.recv(6, socket.MSG_PEEK) == b"unread")
    near.close()  # with bytes unread: TCP says reset
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    near, peer = relay.carry()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            near.sendall(bytes(1000))


def test_gone_guest_after_half_close(relay):
    """A guest that shut its sending side and then goes is noticed although nobody writes."""
    pid = relay.ask()
    near, peer = relay.carry()
    near.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    near.close()
    wait_until("the relay lets go", lambda: "/tcp" not in peers(pid), 10)
    peer.close()


def peers(pid):
    """Kinds of the relay's sockets that are no Unix socket."""
    inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    tcp = {f"socket:[{line.split()[9]}]" for line in list(open(f"/proc/{pid}/net/tcp"))[1:]}
    return "/tcp" if inodes & tcp else ""


def test_many(relay):
    """Two hundred at once in one relay, then all its memory and descriptors are given back."""
    pid = relay.ask()
    relay.carry()[0].close()
    wait_until("idle", lambda: not peers(pid))
    before, memory = fds(pid), rss(pid)
    pairs = [relay.carry() for _ in range(200)]
    for i, (near, peer) in enumerate(pairs):
        near.sendall(b"%d out" % i)
        peer.sendall(b"%d in" % i)
    for i, (near, peer) in enumerate(pairs):
        assert near.recv(20) == b"%d in" % i and peer.recv(20) == b"%d out" % i
    for near, peer in pairs:
        near.close()
        assert peer.recv(1) == b""
        peer.close()
    wait_until("all closed", lambda: fds(pid) == before, 10)
    assert rss(pid) - memory < 1024
    assert relay.ask() == pid


def test_refuses(relay):
    """What is no hand-over is answered with an error, or not at all; nobody else is harmed."""
    pid = relay.ask()
    relay.carry()[0].close()
    wait_until("idle", lambda: not peers(pid))
    before = fds(pid) + 2
    near, peer = relay.carry()
    a, b = socket.socketpair()
    assert relay.hand(a.fileno(), b.fileno(), magic=1) != b"\0"
    assert relay.hand(a.fileno()) != b"\0"
    assert relay.hand(a.fileno(), b.fileno(), a.fileno()) != b"\0"
    assert relay.hand(*[a.fileno()] * 40) != b"\0"
    with open("/dev/null") as f:
        assert relay.hand(f.fileno(), f.fileno()) != b"\0"
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(relay.path)
        s.sendall(b"x" * 100)
        s.settimeout(5)
        s.recv(1)
    wait_until("closed", lambda: fds(pid) == before)
    near.sendall(b"still")
    assert peer.recv(5) == b"still"
    near.close()
    peer.close()
    a.close()
    b.close()


def ask_as(mesh, uid):
    """The pid of that uid's relay."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        os.setgid(uid)
        os.setuid(uid)
        theirs.send(b"%d" % Relay(mesh, uid).ask())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return int(ours.recv(20))


def test_of_another_uid(mesh):
    """Each uid has its own, runs as it, and no other user may connect."""
    root, nobody = ask_as(mesh, 0), ask_as(mesh, 65534)
    assert root != nobody
    wait_until("it has become what it is to be", lambda: open(f"/proc/{nobody}/comm").read() == "weftd-relay\n")
    status = open(f"/proc/{nobody}/status").read()
    assert "Uid:\t65534\t65534\t65534\t65534" in status and "CapEff:\t0000000000000000" in status
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(f"{mesh.dir}/run/relay-0.sock")
            os._exit(1)
        except PermissionError:
            pass
        try:  # its own relay's memory: not even root's words in it are this uid's to read
            open(f"/proc/{nobody}/mem", "rb")
            os._exit(2)
        except PermissionError:
            pass
        ptrace = ctypes.CDLL(None).ptrace
        os._exit(3 if ptrace(16, nobody, 0, 0) == 0 else 0)  # PTRACE_ATTACH
    assert os.waitpid(child, 0)[1] == 0


def test_outlives_weftd(relay):
    """kill -9 and restart of weftd in the middle of a transfer: nothing is lost, and the new one finds the old relay."""
    mesh = relay.mesh
    pid = relay.ask()
    near, peer = relay.carry()
    data = pattern(20 * ONE_MB)

    def restart():
        mesh.kill_weftd()
        mesh.start()
    t = threading.Thread(target=restart)
    t.start()
    for _ in range(5):
        near.sendall(b"go")
        assert peer.recv(2) == b"go"
        t.join(0.1)
    t.join()
    assert pump(near, peer, data) == data
    assert relay.ask() == 0 and alive(pid)
    again = relay.carry()
    for s in (near, peer, *again):
        s.close()
    os.kill(pid, signal.SIGTERM)
    wait_until("the relay ends", lambda: not alive(pid))


def test_ends_with_its_last_connection(relay):
    """SIGTERM: nothing new; what is carried goes on. Meanwhile weftd starts another."""
    pid = relay.ask()
    near, peer = relay.carry()
    os.kill(pid, signal.SIGTERM)
    wait_until("it listens no more", lambda: relay.ask() != pid)
    other = relay.carry()
    near.sendall(b"old")
    assert peer.recv(3) == b"old" and alive(pid)
    near.close()
    assert peer.recv(1) == b""
    wait_until("it ends", lambda: not alive(pid))
    for s in (peer, *other):
        s.close()


def test_release(relay):
    """A guest of a newer release than the relay: weftd has to start another; what is carried goes on."""
    pid = relay.ask()
    near, peer = relay.carry()
    assert relay.hand(near.fileno(), version=2) == bytes([errno.ESTALE])
    assert relay.hand_refused()
    assert relay.ask() not in (0, pid)
    assert relay.hand(near.fileno(), version=0) == bytes([errno.EPROTO])
    near.sendall(b"on")
    assert peer.recv(2) == b"on"
    near.close()
    peer.close()
    wait_until("the old one ends", lambda: not alive(pid))


def test_killed(relay):
    """A relay that is killed: its connections end at once, the next hand-over has a new one."""
    pid = relay.ask()
    near, peer = relay.carry()
    os.kill(pid, signal.SIGKILL)
    assert near.recv(1) == b"" and peer.recv(1) == b""
    wait_until("weftd starts another", lambda: relay.ask() not in (0, pid))
    for s in (near, peer, *relay.carry()):
        s.close()


def test_is_no_command(mesh):
    from mesh import WEFTD
    r = mesh.run([WEFTD, "--relay"], shim=False)
    assert r.code == 2 and b"no command" in r.err, r


@pytest.mark.full
def test_idle_ends(relay):
    pid = relay.ask()
    near, peer = relay.carry()
    near.close()
    peer.close()
    wait_until("it ends by itself", lambda: not alive(pid), 45)
    assert relay.ask() not in (0, pid)


# --- sessions of the mesh ---

STATIC_CAT = r"""
#include <unistd.h>
int main(void)
{
	static char b[65536];
	ssize_t n, at, r;
	while ((n = read(0, b, sizeof(b))) > 0)
		for (at = 0; at < n; at += r)
			if ((r = write(1, b + at, n - at)) < 0)
				return 1;
	return n < 0;
}
"""

# One program for each connection, as inetd starts them; the first line is read before if BEFORE is set.
INETD = """
import os, signal, socket, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=256) as l:
    while True:
        c, _ = l.accept()
        if os.environ.get("BEFORE"):
            c.sendall(b"hello " + c.recv(100))
        subprocess.Popen(os.environ["PROGRAM"].split(), stdin=c, stdout=c)
        c.close()
"""

# Sends SIZE bytes and an end of stream; prints what came back.
CLIENT = """
import hashlib, os, random, socket, sys, threading
data = random.Random(1).randbytes(int(os.environ["SIZE"]))
s = socket.create_connection((os.environ.get("HOST", "orders"), int(os.environ["PORT"])), 60)
if os.environ.get("BEFORE"):
    s.sendall(b"you")
    assert s.recv(100) == b"hello you"
def send():
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=send)
t.start()
got = hashlib.sha256()
n = 0
while chunk := s.recv(1 << 18):
    got.update(chunk)
    n += len(chunk)
t.join()
print(n, got.digest() == hashlib.sha256(data).digest())
"""


@pytest.fixture(scope="session")
def static_cat():
    with tempfile.TemporaryDirectory(prefix="weft-") as folder:
        os.chmod(folder, 0o755)  # for every user
        path = f"{folder}/cat"
        subprocess.run(["gcc", "-static", "-O1", "-xc", "-", "-o", path], input=STATIC_CAT.encode(), check=True)
        yield path


def relays(mesh):
    return [int(p) for p in os.popen(f"pgrep -P {mesh.weftd.pid} weftd-relay").read().split()]


def inetd(mesh, servers, program, before=""):
    port = mesh.port()
    servers(mesh).start(["/usr/bin/python3", "-c", INETD], "orders", port,
                        env={"PORT": port, "PROGRAM": program, "BEFORE": before})
    return port


def client(mesh, port, size=ONE_MB, **env):
    r = mesh.run(["/usr/bin/python3", "-c", CLIENT], service="web", timeout=60, env={"PORT": port, "SIZE": size, **env})
    assert r.text == f"{size} True\n", r


@pytest.mark.parametrize("before", ["", "1"])
@pytest.mark.parametrize("program", ["STATIC", "env -i /bin/cat", "env -u LD_PRELOAD /bin/cat", "/bin/cat"])
def test_exec(strict, servers, static_cat, program, before):
    """Programs that cannot load the shim get their connection through the relay, others directly."""
    port = inetd(strict, servers, program.replace("STATIC", static_cat), before)
    client(strict, port, BEFORE=before)
    assert len(relays(strict)) == (program != "/bin/cat")
    for pid in relays(strict):
        wait_until("nothing is left over", lambda: not peers(pid))


def test_bulk_meshed(strict, servers, static_cat):
    """100 MB each way at once through mTLS and the relay."""
    client(strict, inetd(strict, servers, static_cat), 100 * ONE_MB)


def test_exec_without_relay(make_mesh, servers, static_cat):
    """No relay is to be had: the program finds the end of its input, and one line says why."""
    mesh = make_mesh(options=["--library", "/nowhere/libweft.so"])
    mesh.strict()
    port = inetd(mesh, servers, static_cat)
    r = mesh.run(["/usr/bin/python3", "-c", CLIENT], service="web", env={"PORT": port, "SIZE": 10})
    assert "10 True" not in r.text
    assert "there is no libweft.so for a relay to load" in mesh.logs() and "finds its end" in mesh.logs()


# Gives each connection to a receiver that has no shim.
GIVER = """
import os, socket
with socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=256) as l:
    while True:
        c, _ = l.accept()
        if os.environ.get("BEFORE"):
            c.sendall(b"hello " + c.recv(100))
        with socket.socket(socket.AF_UNIX) as u:
            u.connect(os.environ["UNIX"])
            u.recv(1)  # only now somebody is known to hold the other end
            socket.send_fds(u, [b"x"], [c.fileno()])
            u.recv(1)
        c.close()
"""

TAKER = """
import os, socket, threading
def echo(c):
    with c:
        while chunk := c.recv(1 << 16):
            c.sendall(chunk)
u = socket.socket(socket.AF_UNIX)
u.bind(os.environ["UNIX"])
u.listen(64)
while True:
    s, _ = u.accept()
    s.send(b"r")
    msg, fds, flags, _ = socket.recv_fds(s, 1, 1)
    assert len(fds) == 1, (fds, flags)
    threading.Thread(target=echo, args=(socket.socket(fileno=fds[0]),)).start()
    s.send(b"k")
    s.close()
"""


@pytest.mark.parametrize("before", ["", "1"])
@pytest.mark.parametrize("taker", ["bare", "meshed"])
def test_given(strict, servers, taker, before):
    """socket.send_fds to another program: bare gets plaintext from the relay, meshed the connection itself if it is fresh."""
    path, port = f"{strict.dir}/taker.sock", strict.port()
    strict.popen(["/usr/bin/python3", "-c", TAKER], service="orders", shim=taker == "meshed", env={"UNIX": path})
    wait_until("it listens", lambda: os.path.exists(path))
    servers(strict).start(["/usr/bin/python3", "-c", GIVER], "orders", port,
                          env={"PORT": port, "UNIX": path, "BEFORE": before})
    for _ in range(3):
        client(strict, port, BEFORE=before)
    assert len(relays(strict)) == (taker == "bare")


def test_weftd_killed_while_meshed(strict, servers, static_cat):
    """kill -9 of weftd and a new one during 100 MB through mTLS and the relay."""
    port = inetd(strict, servers, static_cat)
    client(strict, port, 10)
    t = threading.Thread(target=client, args=(strict, port, 100 * ONE_MB))
    t.start()
    family = relays(strict)
    wait_until("it is under way", lambda: peers(family[0]))
    strict.kill_weftd()
    strict.start()
    t.join()
    client(strict, port, 10)
    wait_until("nothing is left over", lambda: not peers(family[0]))
    os.kill(family[0], signal.SIGTERM)
    wait_until("it ends", lambda: not alive(family[0]))


def test_relay_killed_while_meshed(strict, servers, static_cat):
    """The client is told that its stream was cut, and the next connection is carried by a new relay."""
    port = inetd(strict, servers, static_cat)
    code = f"""
import socket
s = socket.create_connection(("orders", {port}), 20)
s.sendall(b"x")
assert s.recv(1) == b"x"
print("up", flush=True)
try:
    print(s.recv(1))
except ConnectionResetError:
    print("reset")
"""
    p = strict.popen(["/usr/bin/python3", "-c", code], service="web")
    wait_until("it is carried", lambda: "up" in p.text())
    os.kill(int(relays(strict)[0]), signal.SIGKILL)
    p.wait()
    assert p.text() == "up\nreset\n"
    client(strict, port, 10)


def test_many_meshed(strict, servers, static_cat):
    """Connections in turns and at once; afterwards the relay is as it was."""
    port = inetd(strict, servers, static_cat)
    client(strict, port, 10)
    pid = relays(strict)[0]
    wait_until("idle", lambda: not peers(pid))
    before, memory = fds(pid), rss(pid)
    code = f"""
import socket
for turn in range(5):
    all = [socket.create_connection(("orders", {port}), 60) for _ in range(20)]
    for i, s in enumerate(all):
        s.sendall(b"%d" % i)
    for i, s in enumerate(all):
        assert s.recv(10) == b"%d" % i
        s.close()
print("done")
"""
    r = strict.run(["/usr/bin/python3", "-c", code], service="web", timeout=60)
    assert r.text == "done\n", r
    wait_until("all given back", lambda: fds(pid) == before, 20)
    assert rss(pid) - memory < 4096


def test_guest_of_another_uid(make_mesh, servers, static_cat):
    """A server of `nobody` has a relay of its own, and the programs that it starts are carried by it."""
    mesh = make_mesh()
    mesh.strict()
    port = mesh.port()
    mesh.popen(["/usr/bin/python3", "-c", INETD], service="orders", user=65534,
               env={"PORT": port, "PROGRAM": static_cat, "HOME": "/"})
    mesh.wait_listening(port)
    mesh.wait_name("orders")
    client(mesh, port)
    uids = [open(f"/proc/{pid}/status").read().split("Uid:")[1].split()[0] for pid in relays(mesh)]
    assert uids == ["65534"]


def test_bash(strict, servers, static_cat):
    """bash's own connection, given to children with and without the shim."""
    port = inetd(strict, servers, "/bin/cat")
    script = f"""
exec 3<>/dev/tcp/orders/{port}
echo one >&3
read -r line <&3
echo "$line"
env -u LD_PRELOAD sh -c 'echo two >&3; read -r l <&3; echo "$l"'
"""
    r = strict.run(["bash", "-c", script], service="web")
    assert r.text == "one\ntwo\n", r
