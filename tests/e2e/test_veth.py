"""Two network namespaces and a veth between them with MTU 1500 and segmentation offload off: records arrive in pieces.

Loopback hides this: its MTU is larger than a record.
"""
import re
import subprocess

import pytest

from proc import wait_until
from servers import pattern


@pytest.fixture
def wire(netns):
    a, b = netns(), netns()

    def ip(*words):
        subprocess.run(["ip", *words], check=True)
    left, right = f"wl{a[-8:]}"[:15].replace("-", ""), f"wr{b[-8:]}"[:15].replace("-", "")
    ip("link", "add", left, "netns", a, "type", "veth", "peer", "name", right, "netns", b)
    for ns, dev, address in ((a, left, "10.77.0.1/24"), (b, right, "10.77.0.2/24")):
        ip("-n", ns, "link", "set", dev, "mtu", "1500", "gso_max_segs", "1", "up")
        ip("-n", ns, "addr", "add", address, "dev", dev)
        subprocess.run(["ip", "netns", "exec", ns, "ethtool", "-K", dev, "tso", "off", "gso", "off", "gro", "off"],
                       check=True, capture_output=True)
    wait_until("the wire is up", lambda: subprocess.run(
        ["ip", "netns", "exec", a, "ping", "-c1", "-W1", "10.77.0.2"], capture_output=True).returncode == 0
        if shutil_which("ping") else "state UP" in subprocess.run(
            ["ip", "-n", a, "link", "show", left], capture_output=True, text=True).stdout)
    return a, b


def shutil_which(name):
    import shutil
    return shutil.which(name)


@pytest.fixture
def over_the_wire(make_mesh, servers, wire):
    """One weftd; the server announces itself at the wire's address, the client sits in the other namespace."""
    client_ns, server_ns = wire
    mesh = make_mesh(netns=server_ns, options=["--advertise", "10.77.0.2"])
    mesh.strict()
    nginx = servers(mesh).nginx("files", listen=f"0.0.0.0:{(port := mesh.port())}", port=port, workers=2)
    for size in (1024, 15000, 200000):
        nginx.file(str(size), pattern(size))
    mesh.wait_endpoints("files", 1)
    return mesh, nginx, client_ns


@pytest.mark.parametrize("size", [1024, 15000, 200000])
def test_wrk_has_no_socket_errors(over_the_wire, size):
    mesh, nginx, ns = over_the_wire
    r = mesh.run(["wrk", "-t2", "-c16", "-d3s", f"http://files/{size}"], service="web", netns=ns, timeout=60)
    assert r.code == 0 and "Socket errors" not in r.text and "Non-2xx" not in r.text, r
    assert int(re.search(r"(\d+) requests in", r.text).group(1)) > 50, r.text


def test_bytes_are_the_same(over_the_wire):
    mesh, nginx, ns = over_the_wire
    data = nginx.file("big", pattern(20 << 20))
    for url in ("http://files/big", f"http://10.77.0.2:{nginx.port}/big"):
        assert mesh.run(["curl", "-sS", url], service="web", netns=ns, timeout=60).out == data
    path = f"{mesh.dir}/up"
    with open(path, "wb") as f:
        f.write(data)
    r = mesh.run(["curl", "-sS", "-T", path, "http://files/put/up"], service="web", netns=ns, timeout=60)
    assert r.code == 0 and open(f"{nginx.root}/put/up", "rb").read() == data, r


@pytest.mark.parametrize("name", ["sizes", "epolls", "flags"])
def test_readers_in_small_steps(over_the_wire, name):
    """A select-driven, an edge-triggered and a one-byte reader of the same body."""
    mesh, nginx, ns = over_the_wire
    want = nginx.file("body", pattern(300000))
    code = {
        "sizes": "while c := s.recv(1 + len(all) % 20000): all += c",
        "epolls": """
import select
s.setblocking(False)
ep = select.epoll(); ep.register(s, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
end = False
while not end:
    assert ep.poll(10), len(all)
    while True:
        try: c = s.recv(3000)
        except BlockingIOError: break
        if not c: end = True; break
        all += c
""",
        "flags": """
import select, fcntl, array, termios
s.setblocking(False)
while True:
    r, _, _ = select.select([s], [], [], 10)
    assert r, len(all)
    n = array.array("i", [0]); fcntl.ioctl(s, termios.FIONREAD, n)
    c = s.recv(max(1, min(n[0], 5000)))  # readable and then EAGAIN would raise here
    if not c: break
    all += c
"""}[name]
    r = mesh.run(["/usr/bin/python3", "-c", f"""
import socket, sys
s = socket.create_connection(("files", 80))
s.sendall(b"GET /body HTTP/1.0\\r\\n\\r\\n")
all = b""
{code}
sys.stdout.buffer.write(all.split(b"\\r\\n\\r\\n", 1)[1])
"""], service="web", netns=ns, timeout=60)
    assert r.code == 0 and r.out == want, (len(r.out), r.err)
