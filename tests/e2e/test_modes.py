"""observe, enforce and off on running processes: nothing is lost while the mode changes, and observe tells what would be."""
import json
import re
import socket
import subprocess
import time

import pytest

from proc import wait_until
from test_bad_input import speaks_plain

# Opens connections one after the other until it is told to stop; one line for each that failed, and a count at the end.
LOADER = """
import socket, sys, threading
host, port, first = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "reads"
stop, done, failed = threading.Event(), 0, 0
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
while not stop.is_set():
    try:
        with socket.create_connection((host, port), 10) as s:
            if not first:
                s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
            data = s.makefile("rb").read()
            if (b"220 hello" if first else b"nginx") not in data:
                raise OSError(f"wrong answer {data[:60]!r}")
        done += 1
    except OSError as e:
        failed += 1
        print("failed after", done, e, flush=True)
print("made", done, "failed", failed, flush=True)
"""

# A server that speaks first, as SMTP's and MySQL's do.
GREETER = """
import os, socket, threading
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
def greet(c):
    with c:
        c.sendall(b"220 hello\\r\\n")
while True:
    threading.Thread(target=greet, args=(s.accept()[0],)).start()
"""


class Load:
    """New connections all the time from one process."""

    def __init__(self, mesh, host, port, service="web", shim=True, first="writes"):
        self.p = mesh.popen(["/usr/bin/python3", "-u", "-c", LOADER, host, port, first], service=service, shim=shim,
                            name=f"load-{len(mesh.processes)}", stdin=subprocess.PIPE)

    def end(self):
        self.p.popen.stdin.close()
        self.p.wait(20)
        words = self.p.text().splitlines()[-1].split()
        return int(words[1]), int(words[3]), self.p.text()[-1500:]


def change(mesh, way, mode):
    if way == "MeshConfig":
        mesh.run(["redis-cli", "-s", mesh.redis_path, "SET", "weft:MeshConfig:default", json.dumps({"mode": mode})], shim=False)
    else:
        mesh.redis_set("WorkloadGroup", "orders", {"selectors": ["unix:uid:0"], "mode": mode})


def endpoint_is_tls(mesh):
    return all(e["tls"] for e in mesh.endpoints("orders"))


@pytest.mark.seconds(120)
@pytest.mark.parametrize("way, first", [
    ("MeshConfig", "writes"),
    ("WorkloadGroup", "reads"),
    pytest.param("MeshConfig", "reads", marks=pytest.mark.full),
    pytest.param("WorkloadGroup", "writes", marks=pytest.mark.full),
])
def test_no_new_connection_fails_while_the_mode_changes(strict, servers, way, first):
    """observe, enforce, off, enforce: clients by name and by address, of a server that is STRICT whenever it enforces."""
    change(strict, way, "observe")
    if first == "writes":
        port = servers(strict).nginx("orders").port
    else:
        port = strict.port()
        servers(strict).python(GREETER, "orders", port)
    wait_until("announced as not encrypting", lambda: strict.endpoints("orders") and not endpoint_is_tls(strict))
    loads = [Load(strict, "orders", port, first=first), Load(strict, "127.0.0.1", port, first=first)]
    ab = None
    if first == "writes":  # a client that never blocks, eight at a time
        ab = strict.popen(["ab", "-q", "-c", "8", "-t", "7", "-n", "10000000", f"http://127.0.0.1:{port}/who"], service="web")
    for mode in ("enforce", "off", "enforce", "observe", "enforce"):
        time.sleep(1.2)
        assert speaks_plain(port) or first == "reads" or endpoint_is_tls(strict)
        change(strict, way, mode)
        wait_until(f"announced for {mode}", lambda: endpoint_is_tls(strict) == (mode == "enforce"), 2, 0.005)
    time.sleep(1.2)
    assert not speaks_plain(port)
    for load in loads:
        made, failed, text = load.end()
        assert failed == 0 and made > 10, text
    if ab:
        ab.wait()
        assert re.search(r"Failed requests: +0\n", ab.text()), ab.text()


def test_a_mode_is_in_force_within_a_second(strict, servers):
    nginx = servers(strict).nginx("orders")
    assert not speaks_plain(nginx.port)
    for mode, plain in (("off", True), ("enforce", False), ("observe", True), ("enforce", False)):
        change(strict, "MeshConfig", mode)
        began = time.monotonic()
        wait_until(f"{mode} is in force", lambda: speaks_plain(nginx.port) == plain, 3)
        assert time.monotonic() - began < 1.0, mode
        time.sleep(0.3)


def test_a_process_that_may_only_observe(strict, servers):
    """WEFT_MODE=observe is a ceiling: announced as not encrypting from the first moment, and everybody is served."""
    nginx = servers(strict).nginx("orders", env={"WEFT_MODE": "observe"})
    assert [e["tls"] for e in strict.wait_endpoints("orders", 1)] == [False]
    assert strict.curl("http://orders/who").text == "nginx\n"
    assert speaks_plain(nginx.port)
    other = servers(strict).nginx("stock")
    assert not speaks_plain(other.port)
    r = strict.curl(f"http://127.0.0.1:{other.port}/who", env={"WEFT_MODE": "observe"})
    assert r.code != 0  # no byte is touched: a STRICT server refuses it as it would without the library


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_a_server_that_does_not_enforce_takes_mesh_clients(strict, servers, mode):
    """What a client does that has not heard of the change: weftd is gone, and its last good answer says TLS."""
    nginx = servers(strict).nginx("orders")
    strict.apply("DestinationRule", "orders", {"host": "orders", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}})
    change(strict, "WorkloadGroup", mode)
    wait_until(f"{mode} is in force", lambda: speaks_plain(nginx.port))
    for _ in range(3):
        assert strict.curl("http://orders/who").text == "nginx\n"
    totals = {p["service"]: p["totals"] for p in strict.weft_json("status", "--coverage")["processes"] if p["pid"]}
    assert totals["orders.default"]["admitted"] == 3


# A connection that begins without the mesh, watched by epoll from before, and asked for again by connect() until it is there.
TWICE = """
import errno, select, socket, sys
s = socket.socket(); s.setblocking(False)
ep = select.epoll()
if sys.argv[2] == "watched": ep.register(s, select.EPOLLOUT)
print(errno.errorcode[s.connect_ex(("127.0.0.1", int(sys.argv[1])))], flush=True)
sys.stdin.readline()
print(errno.errorcode.get(s.connect_ex(("127.0.0.1", int(sys.argv[1]))), 0), flush=True)
if sys.argv[3:]:
    s.setblocking(True)
    s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
    print(s.makefile().read().splitlines()[-1])
"""


@pytest.mark.parametrize("how", ["watched", "bare"])
def test_a_connection_that_began_in_the_clear_goes_on_so(strict, servers, how):
    """The mode changes between two calls of connect() for one connection: what is under way is not begun anew."""
    change(strict, "MeshConfig", "observe")
    time.sleep(1)
    nginx = servers(strict).nginx("orders")
    p = strict.popen(["/usr/bin/python3", "-c", TWICE, nginx.port, how, "use"], service="web", stdin=subprocess.PIPE)
    wait_until("it has begun", lambda: p.text())
    change(strict, "MeshConfig", "enforce")
    wait_until("enforce is in force", lambda: not speaks_plain(nginx.port))
    p.popen.stdin.close()
    p.wait()
    assert p.text().split() == ["EINPROGRESS", "0", "nginx"]


@pytest.mark.parametrize("how", ["watched", "bare"])
def test_a_second_connect_to_somebody_else_is_the_kernels(mesh, how):
    """A stranger that does not take the connection: the second call says EALREADY, as it does without the library."""
    stranger = socket.socket()
    stranger.bind(("127.0.0.1", 0))
    stranger.listen(0)
    port = stranger.getsockname()[1]
    held = [socket.socket() for _ in range(4)]  # until its queue is full
    for s in held:
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", port))
    for shim in (False, True):
        r = mesh.run(["/usr/bin/python3", "-c", TWICE, port, how], service="web" if shim else None, shim=shim)
        assert r.text.split() == ["EINPROGRESS", "EALREADY"], (shim, r)
