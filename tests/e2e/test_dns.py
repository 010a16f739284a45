"""weftd answers DNS, for programs that do not ask libc; and /etc/hosts lines, for those that read that."""
import socket
import struct

import pytest

from mesh import WEFTD
from proc import wait_until

# node's dns.Resolver is c-ares: no call of libc's resolver is made.
NODE = """
const { Resolver } = require("dns");
const r = new Resolver(); r.setServers(["127.0.0.1:" + process.env.DNS]);
r.resolve4("orders", (e, a) => {
    if (e) throw e;
    require("http").get({ host: a[0], port: 80, path: "/who", headers: { host: "orders" } }, (x) => x.pipe(process.stdout));
});
"""


@pytest.fixture
def dns(make_mesh, servers):
    from proc import free_port
    port = free_port()
    mesh = make_mesh(options=["--dns", f"127.0.0.1:{port}"])
    mesh.strict()
    mesh.dns = port
    servers(mesh).nginx("orders")
    return mesh


def dig(mesh, *words):
    r = mesh.run(["dig", "@127.0.0.1", "-p", mesh.dns, "+time=3", "+tries=1", *words], shim=False)
    assert r.code == 0, r
    return r.text


def vips(mesh):
    service = [s for s in mesh.page("/services")["services"] if s["name"] == "orders.default"][0]
    return service["vip4"], service["vip6"]


def test_dig(dns):
    v4, v6 = vips(dns)
    for name in ("orders", "orders.default", "orders.default.svc.cluster.local", "orders.weft", "ORDERS.default"):
        for more in ((), ("+tcp",), ("+noedns",)):
            assert dig(dns, "+short", name, "A", *more) == f"{v4}\n", (name, more)
        assert dig(dns, "+short", name, "AAAA") == f"{v6}\n"
    assert dig(dns, "+short", "-x", v4) == dig(dns, "+short", "-x", v6) == "orders.default.svc.cluster.local.\n"
    text = dig(dns, "orders", "A")
    assert "flags: qr aa rd;" in text and "recursion requested but not available" in text, text


def test_what_is_not_of_the_mesh_is_refused(dns):
    """So that a resolver asks its next server, whatever it is."""
    for words in (("example.com",), ("nosuch.default",), ("-x", "127.0.0.1"), ("-c", "CH", "orders")):
        assert "status: REFUSED" in dig(dns, *words), words


def test_c_ares_inside_a_meshed_program(dns):
    r = dns.run(["node", "-e", NODE], service="web", env={"DNS": dns.dns})
    assert r.text == "nginx\n", r


def test_tcp_clients_that_do_not_finish(dns):
    idle = [socket.create_connection(("127.0.0.1", dns.dns)) for _ in range(80)]  # more than are served at a time
    idle[0].sendall(b"\0")
    assert dig(dns, "+short", "orders", "A").strip() == vips(dns)[0]  # UDP is not disturbed
    for s in idle:
        s.close()
    wait_until("TCP is served again", lambda: "239.240" in dns.run(
        ["dig", "@127.0.0.1", "-p", dns.dns, "+tcp", "+time=1", "+tries=1", "+short", "orders", "A"], shim=False).text)
    with socket.create_connection(("127.0.0.1", dns.dns)) as s:
        s.sendall(struct.pack("!H", 65000) + b"x" * 100)
        assert s.recv(10) == b""  # longer than any question


def test_only_on_loopback(tmp_path, make_mesh):
    mesh = make_mesh(start=False)
    for bad in ("0.0.0.0:5300", "10.1.2.3:53", "127.0.0.1", "127.0.0.1:0", "localhost:53"):
        r = mesh.run([WEFTD, "--socket", mesh.socket, "--state-dir", mesh.state, "--admin", "off", "--dns", bad], shim=False)
        assert r.code == 1 and b"must be a loopback address with a port" in r.err, r


def test_hosts_lines(dns):
    v4, v6 = vips(dns)
    r = dns.weft("endpoints", "--hosts")
    assert r.text.splitlines() == [f"{a}\torders.default.svc.cluster.local orders.default orders" for a in (v4, v6)], r
    assert dns.weft("endpoints", "--hosts", "orders").text == r.text
    assert dns.weft("endpoints", "--hosts", "nosuch").code == 1
