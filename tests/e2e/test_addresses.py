"""IPv6, sockets of both families, mapped addresses, link-local scopes: meshed, and with the names that the program used."""
import subprocess

import pytest

from proc import wait_until

# Answers each client with the address that it sees.
SERVER = """
import os, socket, threading
family = socket.AF_INET6 if ":" in os.environ["HOST"] else socket.AF_INET
s = socket.socket(family)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if family == socket.AF_INET6:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(os.environ["V6ONLY"]))
s.bind(socket.getaddrinfo(os.environ["HOST"], int(os.environ["PORT"]))[0][4])
s.listen(16)
def serve(c, a):
    with c:
        c.recv(100)
        c.sendall(f"{a[0]} {c.getsockname()[0]}".encode())
while True:
    threading.Thread(target=serve, args=s.accept()).start()
"""

# family, address or name, port: prints the server's answer and what getpeername() says.
CLIENT = """
import socket, sys
family = {"4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[1]]
flags = socket.AI_V4MAPPED if "mapped" in sys.argv else 0
a = socket.getaddrinfo(sys.argv[2], int(sys.argv[3]), family, socket.SOCK_STREAM, 0, flags)[0][4]
s = socket.socket(family)
s.connect(a)
s.sendall(b"who is it?")
answer = s.makefile().read()
assert answer
print(answer, *s.getpeername()[:1] + s.getpeername()[3:], "dialled", a[0])
"""


def serve(mesh, service, host, v6only=0, **kw):
    port = mesh.port()
    p = mesh.popen(["/usr/bin/python3", "-c", SERVER], service=service, env={"HOST": host, "PORT": port, "V6ONLY": v6only}, **kw)
    mesh.wait_listening(port, p)
    mesh.wait_name(service)
    return port


def dial(mesh, family, host, port, *more, shim=True):
    return mesh.run(["/usr/bin/python3", "-c", CLIENT, family, host, port, *more], service="web" if shim else None, shim=shim)


@pytest.mark.parametrize("host, v6only, way", [
    ("::1", 1, ("6", "::1")),
    ("::1", 0, ("6", "::1")),
    ("::", 1, ("6", "::1")),
    ("::", 0, ("6", "::1")),
    ("::", 0, ("4", "127.0.0.1")),
    ("::", 0, ("6", "::ffff:127.0.0.1")),
    ("0.0.0.0", 0, ("4", "127.0.0.1")),
    ("0.0.0.0", 0, ("6", "::ffff:127.0.0.1")),
    ("127.0.0.1", 0, ("6", "::ffff:127.0.0.1")),
])
def test_a_dialled_address_is_meshed_and_kept(strict, host, v6only, way):
    port = serve(strict, "orders", host, v6only)
    r = dial(strict, *way, port)
    mapped = ":" in host and "." in way[1]
    seen = f"::ffff:{way[1].removeprefix('::ffff:')}" if mapped else way[1].removeprefix("::ffff:")
    assert r.text == f"{seen} {seen} {way[1]} {'0 ' if way[0] == '6' else ''}dialled {way[1]}\n", r
    assert dial(strict, *way, port, shim=False).code != 0  # STRICT: it was meshed


@pytest.mark.parametrize("host, v6only", [("127.0.0.1", 0), ("::1", 1), ("::", 0), ("0.0.0.0", 0)])
def test_names_serve_both_families(strict, host, v6only):
    """The address of a name is one of the family asked for; where the server really is does not matter."""
    port = serve(strict, "orders", host, v6only)
    r = dial(strict, "6", "orders", port)
    assert r.code == 0 and " dialled ff3e:7765:6674:" in r.text, r
    if host != "::1":
        r = dial(strict, "4", "orders", port)
        assert r.code == 0 and " dialled 239.240." in r.text, r
        assert strict.curl(f"http://orders:{port}/").code in (0, 1), r


def test_a_link_local_address_keeps_its_scope(make_mesh, netns):
    ns = netns()
    for words in ("link add d0 type veth peer d1", "link set d0 up", "link set d1 up"):
        subprocess.run(["ip", "-n", ns, *words.split()], check=True)

    def addresses():
        out = subprocess.run(["ip", "-n", ns, "-o", "-6", "addr", "show", "dev", "d0"], capture_output=True, text=True).stdout
        return "tentative" not in out and [w.split("/")[0] for w in out.split() if w.startswith("fe80")]
    address = wait_until("d0 has its address", addresses)[0]
    mesh = make_mesh(netns=ns)
    mesh.strict()
    port = mesh.port()
    p = mesh.popen(["/usr/bin/python3", "-c", SERVER], service="orders", env={"HOST": f"{address}%d0", "PORT": port, "V6ONLY": 1})
    mesh.wait_listening(port, p)
    mesh.wait_endpoints("orders", 1)
    r = dial(mesh, "6", f"{address}%d0", port)
    scope = subprocess.run(["ip", "netns", "exec", ns, "cat", "/sys/class/net/d0/ifindex"], capture_output=True, text=True).stdout
    assert r.text == f"{address} {address} {address} {scope.strip()} dialled {address}\n", r
    assert dial(mesh, "6", f"{address}%d0", port, shim=False).code != 0
