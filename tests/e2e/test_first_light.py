"""An unmodified nginx and an unmodified curl speak mTLS, by name and by the address they had before."""
import re

import pytest

from capture import Capture
from proc import wait_until

SECRET = "the-price-of-everything"


@pytest.fixture
def orders(strict, servers):
    return servers(strict).nginx("orders", who=SECRET)


def test_by_name(strict, orders):
    r = strict.curl("http://orders/who")
    assert r.text == SECRET + "\n", r


def test_by_every_form_of_the_name(strict, orders):
    for name in ("orders", "orders.default", "orders.default.svc", "orders.default.svc.cluster.local", "orders.weft",
                 "ORDERS", f"orders:{orders.port}"):
        r = strict.curl(f"http://{name}/who")
        assert r.text == SECRET + "\n", (name, r)


def test_by_the_address_it_had_before(strict, orders):
    r = strict.curl(orders.url + "/who")
    assert r.text == SECRET + "\n", r


def test_strict_refuses_a_curl_without_the_shim(strict, orders):
    r = strict.curl(orders.url + "/who", shim=False)
    assert r.code != 0 and not r.out, r
    assert SECRET not in orders.access_log()


def test_permissive_lets_a_bare_curl_in(mesh, servers):
    nginx = servers(mesh).nginx("orders")
    assert mesh.curl(nginx.url + "/who", shim=False).text == "nginx\n"
    assert mesh.curl(nginx.url + "/who").text == "nginx\n"


def test_disable_means_plaintext(mesh, servers):
    mesh.apply("PeerAuthentication", "istio-system/default", {"mtls": {"mode": "DISABLE"}})
    nginx = servers(mesh).nginx("orders")
    assert mesh.curl(nginx.url + "/who", shim=False).text == "nginx\n"


def test_no_plaintext_on_the_wire(make_mesh, servers, netns):
    ns = netns()
    mesh = make_mesh(netns=ns)
    mesh.strict()
    nginx = servers(mesh).nginx("orders", who=SECRET)
    with Capture("lo", ns) as seen:
        assert mesh.curl("http://orders/who", "-H", f"X-Token: {SECRET}").text == SECRET + "\n"
        assert mesh.curl(nginx.url + "/who").text == SECRET + "\n"
    flows = seen.flows()
    assert len(flows) == 4, list(flows)
    for data in flows.values():
        assert data[:2] == b"\x16\x03"
        assert SECRET.encode() not in data and b"HTTP/1.1" not in data


def test_the_capture_would_have_seen_it(make_mesh, servers, netns):
    """The same without the shim: what the test above looks for is there to be found."""
    ns = netns()
    mesh = make_mesh(netns=ns)
    nginx = servers(mesh).nginx("orders", who=SECRET, shim=False)
    with Capture("lo", ns) as seen:
        assert mesh.curl(nginx.url + "/who", shim=False).text == SECRET + "\n"
    assert any(SECRET.encode() in data for data in seen.flows().values())


def test_each_side_saw_the_other(strict, servers):
    log = f"{strict.dir}/shim.log"
    told = {"WEFT_LOG": f"info:{log}"}
    nginx = servers(strict).nginx("orders", who=SECRET, env=told)
    assert strict.curl("http://orders/who", env=told).text == SECRET + "\n"

    def said(pattern):
        return re.search(pattern, open(log).read())
    wait_until("the server names its peer",
               lambda: said(r"connection from \S+ admitted: peer spiffe://cluster\.local/ns/default/sa/web\b"))
    wait_until("the client names its peer",
               lambda: said(r"connection to \S+ open: peer spiffe://cluster\.local/ns/default/sa/orders\b"))
    assert nginx.process.running()


def test_the_client_is_who_policy_says(strict, servers):
    """The identity that the server sees is the one that decides."""
    servers(strict).nginx("orders", who=SECRET)
    strict.apply("AuthorizationPolicy", "only-web", {
        "selector": {"matchLabels": {"app": "orders"}}, "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/web"]}}]}]})
    wait_until("another client is refused", lambda: strict.curl("http://orders/who", service="other").code != 0)
    assert strict.curl("http://orders/who", service="web").text == SECRET + "\n"


def test_python_client_by_name(strict, servers):
    servers(strict).nginx("orders", who=SECRET)
    r = strict.run(["/usr/bin/python3", "-c",
                    "import urllib.request; print(urllib.request.urlopen('http://orders/who').read().decode(), end='')"],
                   service="web")
    assert r.text == SECRET + "\n", r


def test_what_the_program_sees(strict, servers):
    """getpeername() is what was dialled; the name resolves to a stable virtual address of the mesh's range."""
    servers(strict).nginx("orders")
    code = ("import socket\n"
            "a = {x[4] for x in socket.getaddrinfo('orders', 80, socket.AF_INET, socket.SOCK_STREAM)}\n"
            "s = socket.create_connection(('orders', 80))\n"
            "print(len(a), s.getpeername() in a, s.getpeername()[0])\n"
            "print(socket.gethostbyname('orders') == s.getpeername()[0], socket.getnameinfo(s.getpeername(), 0)[0])\n"
            "print({x[4][0][:12] for x in socket.getaddrinfo('orders', 80, socket.AF_INET6, socket.SOCK_STREAM)})\n")
    first = strict.run(["/usr/bin/python3", "-c", code], service="web")
    lines = first.text.split("\n")
    assert lines[0].startswith("1 True 239.240."), first
    assert lines[1].startswith("True orders"), first
    assert "ff3e:7765:66" in lines[2], first
    assert strict.run(["/usr/bin/python3", "-c", code], service="web").text == first.text


def test_an_address_nobody_holds_is_refused(strict):
    r = strict.curl("http://239.240.77.77/")
    assert r.code == 7, r


def test_one_step_with_only_ld_preload(strict, servers):
    """No WEFT_SERVICE: the program's name serves on its own host, as --attest open says."""
    servers(strict).nginx("orders", who=SECRET)
    r = strict.curl("http://orders/who", service=None)
    assert r.text == SECRET + "\n", r
